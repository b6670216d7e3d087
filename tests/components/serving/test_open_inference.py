"""The Open Inference Protocol as its public clients speak it: Triton's, with and without its binary extension, and the
one generated from the protocol's OpenAPI document."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.components.serving.server import LIMITS, served, service_of
from tests.tiny_classifier import texts, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
LINES = [*texts(4), "Es kam zu spät 味道"]
LABELS = ("bad", "good", "odd")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two models: m, and n of sets of labels."""
    place = tmp_path_factory.mktemp("models")
    models = {
        "m": tiny_classifier(place / "m", labels=LABELS),
        "n": tiny_classifier(place / "n", labels=("red", "green"), kind="set", seed=1),
    }
    with served(service_of(models)) as url:
        yield url


@pytest.fixture(scope="module")
def wanted(url: str) -> list[dict[str, Any]]:
    return httpx.post(url + "/predict", json={"text": LINES}).json()["predictions"]  # type: ignore[no-any-return]


@pytest.fixture
def triton(url: str) -> Iterator[Any]:
    http = pytest.importorskip("tritonclient.http", reason="the dependency group test has Triton's client")
    with http.InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_is_answered(triton: Any, wanted: list[dict[str, Any]], binary: bool) -> None:
    from tritonclient.http import InferInput

    given = InferInput("text", [len(LINES)], "BYTES")
    given.set_data_from_numpy(np.array(LINES, dtype=object), binary_data=binary)
    found = triton.infer("m", [given], request_id="7")
    scores = found.as_numpy("scores")
    np.testing.assert_allclose(scores, [list(row["scores"].values()) for row in wanted], atol=1e-5)
    assert found.as_numpy("label").tolist() == [row["label"] for row in wanted]
    assert (found.get_response()["id"], found.get_response()["model_version"]) == ("7", "1")
    assert json.loads(found.get_output("scores")["parameters"]["labels"]) == list(LABELS)


def test_tritons_client_asks_for_one_output_of_one_version(triton: Any, wanted: list[dict[str, Any]]) -> None:
    from tritonclient.http import InferInput, InferRequestedOutput

    given = InferInput("text", [2, 1], "BYTES")
    given.set_data_from_numpy(np.array([[line] for line in LINES[:2]], dtype=object), binary_data=False)
    found = triton.infer("m", [given], model_version="1", outputs=[InferRequestedOutput("label", binary_data=False)])
    assert [output["name"] for output in found.get_response()["outputs"]] == ["label"]
    assert found.as_numpy("label").tolist() == [row["label"] for row in wanted[:2]]


def test_tritons_client_learns_what_is_there(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("n")
    assert not triton.is_model_ready("other")
    assert not triton.is_model_ready("m", "2")
    told = triton.get_model_metadata("m")
    assert [(t["name"], t["datatype"], t["shape"]) for t in told["outputs"]] == [
        ("scores", "FP32", [-1, 3]),
        ("label", "BYTES", [-1]),
    ]
    assert [t["name"] for t in triton.get_model_metadata("n")["outputs"]] == ["scores"]
    assert triton.get_server_metadata()["name"] == "raypath"


def test_tritons_client_is_told_what_is_wrong(triton: Any) -> None:
    from tritonclient.http import InferInput, InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    given = InferInput("text", [1], "BYTES")
    given.set_data_from_numpy(np.array(["SECRET"], dtype=object))
    for model, outputs, status, told in (
        ("other", None, "404", "no model other; served models: m, n"),
        ("m", [InferRequestedOutput("logits")], "422", "no such output; outputs: scores, label"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            triton.infer(model, [given], outputs=outputs)
        assert caught.value.status() == status
        assert caught.value.message() == told


@pytest.mark.parametrize(
    ("head", "rest", "length"),
    [
        ({}, b"", None),
        ({"inputs": [{"parameters": {"binary_data_size": 9}}]}, struct.pack("<I", 1 << 31) + b"SECRET", None),
        ({"inputs": [{"parameters": {"binary_data_size": 3}}]}, b"abc", None),
        ({"inputs": [{"parameters": {"binary_data_size": 6}}]}, struct.pack("<I", 2) + b"\xff\xfe", None),
        ({"inputs": [{"parameters": {"binary_data_size": 1}}]}, struct.pack("<I", 2) + b"ab", None),
        ({"inputs": []}, b"", "9" * 40),
        ({"inputs": []}, b"", "-1"),
        ({"inputs": []}, b"", "٣"),
    ],
)
def test_a_broken_binary_body_is_refused(url: str, head: Any, rest: bytes, length: str | None) -> None:
    front = json.dumps(head).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": (length or str(len(front))).encode(),
    }
    reply = httpx.post(url + "/v2/models/m/infer", content=front + rest, headers=headers)  # type: ignore[arg-type]
    assert reply.status_code == 422
    assert "SECRET" not in reply.text


def test_as_many_texts_in_binary_as_in_json(url: str) -> None:
    rest = struct.pack("<I", 0) * (LIMITS.max_items + 1)
    tensor = {"name": "text", "datatype": "BYTES", "shape": [LIMITS.max_items + 1]}
    tensor["parameters"] = {"binary_data_size": len(rest)}  # type: ignore[assignment]
    front = json.dumps({"inputs": [tensor]}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(front))}
    reply = httpx.post(url + "/v2/models/m/infer", content=front + rest, headers=headers)
    assert (reply.status_code, reply.json()["detail"]) == (422, "51 texts; wanted at most 50 (serve.max_items)")


def test_the_protocols_own_client_is_answered(url: str, wanted: list[dict[str, Any]]) -> None:
    oip = pytest.importorskip("open_inference.openapi.client", reason="the group test has it")
    from open_inference.openapi.errors import NotFoundError
    from open_inference.openapi.types import InferenceRequest, RequestInput, TensorData

    http = httpx.Client(timeout=20)
    client = oip.OpenInferenceClient(base_url=url, httpx_client=http)
    data = TensorData.parse_obj(LINES)
    tensor = RequestInput(name="text", datatype="BYTES", shape=[len(LINES)], data=data)
    found = client.model_infer("m", request=InferenceRequest(id="7", inputs=[tensor]))
    scores, label = found.outputs
    np.testing.assert_allclose(
        np.reshape(scores.data.__root__, scores.shape), [list(row["scores"].values()) for row in wanted], atol=1e-5
    )
    assert label.data.__root__ == [row["label"] for row in wanted]
    assert client.read_model_metadata("n").versions == ["1"]
    client.check_server_readiness()
    with pytest.raises(NotFoundError) as caught:
        client.check_model_readiness("other")
    assert caught.value.status_code == 404
    http.close()
