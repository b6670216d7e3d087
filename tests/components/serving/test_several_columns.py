"""A model with several input columns in service: rows over HTTP, tensors by name, the interface document, the card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import raypath
from raypath.components.core.columns import Column
from raypath.components.inference.local_model import LocalModel
from tests.components.serving.server import LIMITS, served, service_of
from tests.tiny_classifier import SEVERAL, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROWS: list[dict[str, Any]] = [
    {"title": "lovely cup", "price": 4.5, "new": True, "tags": ["tea", "green"], "at": "2025-03-31"},
    {"title": "broken box", "price": None, "new": False, "tags": None, "at": None},
    {"title": "only a title"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "m"
    tiny_classifier(folder, columns=SEVERAL, form="fields")
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    model = tiny_classifier(folder.with_name("n"), seed=1)
    main = tiny_classifier(folder, columns=SEVERAL, form="fields")
    with served(service_of({"m": main, "n": model})) as url:
        yield url


def test_rows_are_predicted_as_in_process(url: str, folder: Path) -> None:
    reply = httpx.post(f"{url}/predict", json={"rows": ROWS})
    assert reply.status_code == 200, reply.text
    local = LocalModel(folder, "m", 1, threads=1).predict(ROWS)
    scores = [list(row["scores"].values()) for row in reply.json()["predictions"]]
    np.testing.assert_allclose(scores, [list(row.scores.values()) for row in local], atol=1e-4)
    with raypath.Client(url) as client:
        assert [row.label for row in client.predict(ROWS)] == [row.label for row in local]
        assert client.predict(ROWS[0])[0].label == local[0].label
    assert httpx.post(f"{url}/models/n/predict", json={"text": "a"}).status_code == 200, "another model, one text"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text": "a"}, "rows: Field required"),
        ({"rows": []}, "wanted at least one text"),
        ({"rows": [{"titel": "a"}]}, "Extra inputs are not permitted"),
        ({"rows": [{"title": "a", "price": "dear"}]}, "rows.0.price"),
        ({"rows": [{"title": "a", "at": "soon"}]}, "at[0] is not a date or time in ISO 8601"),
        ({"rows": [{"price": 3}, {"title": None}]}, "row 1 has no value in any column"),
        ({"rows": [{"title": "a" * 501}]}, "characters"),
    ],
)
def test_other_rows_are_rejected_by_name(url: str, body: Any, message: str) -> None:
    reply = httpx.post(f"{url}/predict", json=body)
    assert reply.status_code == 422
    assert message in reply.json()["detail"]


def _tensors() -> list[dict[str, Any]]:
    return [
        {"name": "price", "datatype": "INT64", "shape": [2], "data": [4, 2]},
        {"name": "title", "datatype": "BYTES", "shape": [2], "data": ["lovely cup", "broken box"]},
        {"name": "new", "datatype": "BOOL", "shape": [2], "data": [True, False]},
        {"name": "tags", "datatype": "BYTES", "shape": [2], "data": ["tea | green", ""]},
        {"name": "at", "datatype": "BYTES", "shape": [2, 1], "data": [["2025-03-31"], [""]]},
    ]


def test_tensors_by_name(url: str) -> None:
    known = httpx.get(f"{url}/v2/models/m").json()["inputs"]
    assert [(tensor["name"], tensor["datatype"]) for tensor in known] == [
        ("title", "BYTES"), ("price", "FP64"), ("new", "BOOL"), ("tags", "BYTES"), ("at", "BYTES")
    ]  # fmt: skip
    reply = httpx.post(f"{url}/v2/models/m/infer", json={"inputs": _tensors()})
    assert reply.status_code == 200, reply.text
    rows = [{**ROWS[0], "price": 4}, {"title": "broken box", "price": 2, "new": False, "tags": [], "at": None}]
    wanted = httpx.post(f"{url}/predict", json={"rows": rows}).json()["predictions"]
    assert reply.json()["outputs"][1]["data"] == [row["label"] for row in wanted]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: {"name": "prize"}}, "wanted title, price, new, tags, at, each once"),
        ({0: {"data": ["a", "b"], "datatype": "BYTES"}}, "wrong datatype; wanted FP64"),
        ({0: {"data": ["a", "b"]}}, "wrong datatype; wanted FP64"),
        ({2: {"shape": [1], "data": [True]}}, "different numbers of rows"),
        ({0: {"shape": [3]}}, "the shape does not fit 2 elements"),
    ],
)
def test_other_tensors_are_rejected(url: str, change: dict[int, Any], message: str) -> None:
    inputs = [{**tensor, **change.get(n, {})} for n, tensor in enumerate(_tensors())]
    reply = httpx.post(f"{url}/v2/models/m/infer", json={"inputs": inputs})
    assert (reply.status_code, message in reply.json()["detail"]) == (422, True), reply.text


def test_tritons_client_sends_binary_tensors(url: str) -> None:
    http = pytest.importorskip("tritonclient.http", reason="the dependency group test has Triton's client")
    given = []
    for tensor in _tensors():
        kind = {"INT64": np.int64, "BOOL": np.bool_}.get(tensor["datatype"], object)
        values = np.array(tensor["data"], dtype=kind).reshape(tensor["shape"])
        given.append(http.InferInput(tensor["name"], tensor["shape"], tensor["datatype"]))
        given[-1].set_data_from_numpy(values, binary_data=True)
    with http.InferenceServerClient(url.removeprefix("http://")) as client:
        found = client.infer("m", given).as_numpy("scores")
    plain = httpx.post(f"{url}/v2/models/m/infer", json={"inputs": _tensors()}).json()["outputs"][0]["data"]
    np.testing.assert_allclose(found.ravel(), plain, atol=1e-5)


def test_the_document_and_the_card_name_the_columns(url: str) -> None:
    found = httpx.get(f"{url}/openapi.json").json()
    row = found["components"]["schemas"]["Row"]["properties"]
    assert list(row) == ["title", "price", "new", "tags", "at"]
    assert {"type": "number"} in row["price"]["anyOf"]
    body = found["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/RowsRequest"}
    card = httpx.get(f"{url}/card").json()
    assert card["inputs"][1] == {"name": "price", "kind": "number"}
    assert httpx.get(f"{url}/models/n/card").json()["inputs"] == [{"name": "text", "kind": "text"}]


def test_a_version_with_other_inputs_is_not_put_in_service(url: str, folder: Path) -> None:
    from raypath.components import DataError
    from raypath.components.serving.replica.loader import open_version

    service = service_of({"m": tiny_classifier(folder.with_name("p"), columns=SEVERAL, form="fields")})
    other = open_version(folder.with_name("n"), "m", 2, threads=1)
    with pytest.raises(DataError, match="its inputs are text, and a version with others is in service"):
        service.models._checked(other)
    assert json.loads((folder / "raypath.json").read_text())["form"] == "fields"


def test_a_wide_model_takes_as_many_rows_as_others(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(20)]
    columns = tuple(Column(name=name, kind="boolean", stored=f"input.{name}") for name in names)
    model = tiny_classifier(tmp_path / "wide", columns=columns, form="fields")
    count = LIMITS.max_items
    tensors = [{"name": name, "datatype": "BOOL", "shape": [count, 1]} for name in names]
    json_tensors = [{**tensor, "data": [True] * count} for tensor in tensors]
    binary = [{**tensor, "parameters": {"binary_data_size": count}} for tensor in tensors]
    head = json.dumps({"inputs": binary}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    with served(service_of({"m": model})) as url:
        rows = {"rows": [dict.fromkeys(names, True)] * count}
        replies = [
            httpx.post(f"{url}/predict", json=rows, timeout=30),
            httpx.post(f"{url}/v2/models/m/infer", json={"inputs": json_tensors}, timeout=30),
            httpx.post(
                f"{url}/v2/models/m/infer", content=head + b"\1" * count * len(names), headers=headers, timeout=30
            ),
        ]
        assert [reply.status_code for reply in replies] == [200] * 3, [reply.text[:200] for reply in replies]
        rows["rows"] *= 2
        assert httpx.post(f"{url}/predict", json=rows).status_code == 422
