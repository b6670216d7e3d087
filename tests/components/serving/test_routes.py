"""The HTTP side: the Open Inference Protocol, the page, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from raypath.components.core.artifacts import Model
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.inference.engine import Engine
from raypath.components.serving.api.errors import MAX_ERRORS
from tests.components.serving.replica import api_of
from tests.tiny_classifier import LENGTH, texts, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
LINES = texts(5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("model"), labels=("bad", "good", "<b>odd</b>"))


@pytest.fixture(scope="module")
def client(model: Model) -> Iterator[TestClient]:
    with TestClient(api_of(model), raise_server_exceptions=False) as client:
        yield client


def infer(
    client: TestClient, given: list[str], path: str = "/v2/models/m/infer", **changes: object
) -> tuple[int, dict]:  # type: ignore[type-arg]
    tensor = {"name": "text", "shape": [len(given)], "datatype": "BYTES", "data": given} | changes
    reply = client.post(path, json={"id": "7", "inputs": [tensor]})
    return reply.status_code, reply.json()


def test_the_open_inference_protocol_answers_tensors(client: TestClient, model: Model) -> None:
    status, found = infer(client, LINES)
    assert status == 200
    assert (found["model_name"], found["model_version"], found["id"]) == ("m", "1", "7")
    scores, label = found["outputs"]
    folder = Path(model.uri)
    engine = Engine(folder)
    wanted = engine.task.decode(engine.record(TextTokenizer(folder, LENGTH).encode(LINES)))
    assert scores["shape"] == [5, 3]
    np.testing.assert_allclose(np.array(scores["data"]).reshape(5, 3), wanted, atol=1e-5)
    assert scores["parameters"] == {"labels": '["bad", "good", "<b>odd</b>"]'}
    assert label["data"] == [model.labels[k] for k in wanted.argmax(axis=1)]
    assert infer(client, LINES, "/v2/models/m/versions/1/infer")[1]["outputs"] == found["outputs"]


def test_the_protocol_tells_what_is_there(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "raypath"
    told = client.get("/v2/models/m").json()
    assert (told["versions"], told["inputs"][0]["datatype"], told["outputs"][0]["shape"]) == (["1"], "BYTES", [-1, 3])
    assert client.get("/v2/models/m/versions/1/ready").json() == {"name": "m", "ready": True}
    for path in ("/v2/models/other", "/v2/models/m/versions/2", "/v2/models/other/ready"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "changes", [{"shape": [3]}, {"datatype": "FP32"}, {"name": "SECRET"}, {"data": [1]}, {"shape": []}]
)
def test_a_wrong_tensor_is_refused(client: TestClient, changes: dict[str, object]) -> None:
    status, found = infer(client, ["SECRET", "SECRET"], **changes)
    assert status == 422
    assert "SECRET" not in json.dumps(found)


def test_the_type_may_name_its_charset(client: TestClient) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    assert client.post("/predict", content=b'{"text": "x"}', headers=headers).status_code == 200


def test_of_many_mistakes_the_first_ones_are_told(client: TestClient) -> None:
    reply = client.post("/predict", json={"text": "x"} | {f"field{n}": n for n in range(MAX_ERRORS + 5)})
    assert len(reply.json()["errors"]) == MAX_ERRORS


def test_an_unknown_address_is_a_problem_too(client: TestClient) -> None:
    for reply in (client.get("/nowhere"), client.get("/predict")):
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.status_code in (404, 405)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_runs_nothing_but_what_stands_in_it(client: TestClient, path: str) -> None:
    reply = client.get(path)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    for tag in ("script", "style"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", reply.text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inside]
        allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
        assert digests
        assert f"{tag}-src {allowed};" in policy
    assert not re.findall(r"(?:src|href)=|https?://|innerHTML| style=| on\w+=", reply.text)
