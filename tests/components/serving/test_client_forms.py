"""Requests in the forms that clients of many kinds send: nulls, charsets, byte order marks, HEAD, preflights."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from starlette.testclient import TestClient

from raypath.components.core.artifacts import Model
from raypath.components.core.errors import ParamsError
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.params import ServeParams
from tests.components.serving.replica import api_of
from tests.components.serving.server import LIMITS, served, service_of
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
APP = "https://app.example.com"
JSON = {"content-type": "application/json"}
CALL = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-stainless-lang"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def client(model: Model) -> Iterator[httpx.Client]:
    """Of the model m, without keys and origins."""
    with served(service_of({"m": model})) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture(scope="module")
def plain(model: Model) -> Iterator[TestClient]:
    """Of the same in process: a server may reset the connection of a body that it refuses unread."""
    with TestClient(api_of(model)) as client:
        yield client


@pytest.fixture(scope="module")
def keyed(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, str]]:
    """Of the same with keys, for pages of APP, and a key."""
    folder = tmp_path_factory.mktemp("keys")
    _, key = KeyStore(folder).create("a", ["predict", "embed"])
    service = service_of({"m": model}, LIMITS.model_copy(update={"origins": (APP,)}), access=str(folder))
    with served(service) as url, httpx.Client(base_url=url) as client:
        yield client, key


def infer(client: httpx.Client, shape: list[int], data: object) -> httpx.Response:
    tensor = {"name": "text", "datatype": "BYTES", "shape": shape, "data": data}
    return client.post("/v2/models/m/infer", json={"inputs": [tensor]})


def test_null_is_as_absent(client: httpx.Client) -> None:
    plain = client.post("/v1/embeddings", json={"model": "m", "input": "a"})
    nulls = {"encoding_format": None, "user": None, "dimensions": None, "extra": None}
    reply = client.post("/v1/embeddings", json={"model": "m", "input": "a", **nulls})
    assert reply.status_code == 200
    assert reply.json()["data"] == plain.json()["data"]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"], "parameters": None}
    body = {"inputs": [tensor], "id": None, "outputs": None, "parameters": None}
    assert client.post("/v2/models/m/infer", json=body).status_code == 200


def test_embeddings_have_a_limit_of_their_own(client: httpx.Client) -> None:
    most = ServeParams().max_embeddings
    assert most == 2_048, "what OpenAI's clients send"
    reply = client.post("/v1/embeddings", json={"model": "m", "input": ["a"] * most})
    assert len(reply.json()["data"]) == most
    reply = client.post("/v1/embeddings", json={"model": "m", "input": ["a"] * (most + 1)})
    told = "2,049 texts; wanted at most 2,048 (serve.max_embeddings)"
    assert (reply.status_code, reply.json()["detail"]) == (422, told)


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"text": ["x"] * 51}, 422, "serve.max_items"),
        ({"text": ["x"] * 500}, 422, "serve.max_items"),
        ({"text": "x" * 501}, 422, "serve.max_characters"),
        ({"text": "x" * 100_000}, 413, "serve.max_body"),
    ],
)
def test_a_limit_is_named(plain: TestClient, body: object, status: int, named: str) -> None:
    reply = plain.post("/predict", json=body)
    assert reply.status_code == status
    assert named in reply.json()["detail"]


def test_token_ids_are_those_of_another_tokenizer_unless_the_operator_says_so(client: httpx.Client) -> None:
    for ids in ([7, 8], [[7, 8], [9]]):
        reply = client.post("/v1/embeddings", json={"model": "m", "input": ids})
        assert reply.status_code == 422
        assert "check_embedding_ctx_length=False" in reply.json()["detail"]
        assert "serve.token_ids=true" in reply.json()["detail"]


def test_a_tensor_may_be_nested_as_its_shape_says(client: httpx.Client) -> None:
    wanted = infer(client, [2], ["a", "b"]).json()["outputs"]
    for shape, data in (([2, 1], [["a"], ["b"]]), ([1, 2], [["a", "b"]]), ([2, 1], ["a", "b"])):
        reply = infer(client, shape, data)
        assert reply.status_code == 200, shape
        assert reply.json()["outputs"] == wanted


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([1, 2], [["a"], ["b"]]),
        ([2, 1], [["a", "b"]]),
        ([2, 2], [["a", "b"], ["c"]]),
        ([2], [["a"], ["b"]]),
        ([1], [["a"]]),
        ([3, 1], [["a"], ["b"]]),
        ([2, 1], [["a"], "b"]),
        ([2, 1], ["a", ["b"]]),
        ([1, 1], [[["a"]]]),
        ([1, 0], [[]]),
    ],
)
def test_a_tensor_that_is_nested_otherwise_is_refused(client: httpx.Client, shape: list[int], data: object) -> None:
    assert infer(client, shape, data).status_code == 422


@pytest.mark.parametrize("path", ["/healthz", "/", "/docs", "/openapi.json", "/card", "/v2/health/ready", "/v1/models"])
def test_head_is_get_without_a_body(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
    own = {"date", "x-request-id"}
    assert {name: value for name, value in head.headers.items() if name not in own} == {
        name: value for name, value in get.headers.items() if name not in own
    }


def test_head_needs_the_same_key_as_get(keyed: tuple[httpx.Client, str]) -> None:
    client, key = keyed
    assert client.head("/healthz").status_code == 200
    assert client.head("/card").status_code == 401
    assert client.head("/card", headers={"x-api-key": key}).status_code == 200
    assert client.head("/predict", headers={"x-api-key": key}).status_code == 405
    assert "head" not in client.get("/openapi.json").json()["paths"]["/healthz"]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json; profile=x; charset = UTF8",
        "application/json; charset=us-ascii",
        "application/json;",
        "Application/JSON",
        "application/problem+json",
    ],
)
def test_a_content_type_of_json_in_utf8_is_taken(client: httpx.Client, kind: str) -> None:
    assert client.post("/predict", content=b'{"text": "x"}', headers={"content-type": kind}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=latin-1", "application/json; charset=utf16"])
def test_another_content_type_is_not(plain: TestClient, kind: str) -> None:
    assert plain.post("/predict", content=b'{"text": "x"}', headers={"content-type": kind}).status_code == 415


def test_a_byte_order_mark_is_no_part_of_the_body(client: httpx.Client) -> None:
    bodies = {
        "/predict": {"text": "a"},
        "/models/m/predict": {"text": "a"},
        "/v1/embeddings": {"model": "m", "input": "a"},
        "/v2/models/m/infer": {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]},
    }
    for path, body in bodies.items():
        text = json.dumps(body)
        plain = client.post(path, content=text.encode(), headers=JSON).json()
        assert client.post(path, content=text.encode("utf-8-sig"), headers=JSON).json() == plain, path


def test_pages_of_other_origins_are_off_by_default(client: httpx.Client) -> None:
    reply = client.options("/predict", headers={"origin": APP, **CALL})
    assert (reply.status_code, reply.headers["content-type"]) == (403, "application/problem+json")
    assert "serve.origins" in reply.json()["detail"]
    reply = client.post("/predict", json={"text": "a"}, headers={"origin": APP})
    assert reply.status_code == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_pages_of_the_origins_of_the_setting_may_call(keyed: tuple[httpx.Client, str]) -> None:
    client, key = keyed
    reply = client.post("/predict", json={"text": "a"}, headers={"origin": APP, "x-api-key": key})
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, APP)
    reply = client.options("/predict", headers={"origin": APP, **CALL})
    assert (reply.status_code, reply.content) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == APP
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-allow-headers"] == CALL["access-control-request-headers"]
    for more, status in (({}, 401), ({"x-api-key": key}, 200)):
        reply = client.get("/card", headers={"origin": APP, **more})
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, APP)
        assert reply.headers["vary"] == "Origin"
    for other in ("https://app.example.com.evil.org", "http://app.example.com", "null"):
        assert client.options("/predict", headers={"origin": other, **CALL}).status_code == 403
        reply = client.get("/healthz", headers={"origin": other})
        assert "access-control-allow-origin" not in reply.headers
        assert reply.headers["vary"] == "Origin"
    assert client.options("/predict", headers={"origin": APP}).status_code == 401, "no preflight"


def test_any_origin_may_be_allowed(model: Model) -> None:
    service = service_of({"m": model}, LIMITS.model_copy(update={"origins": ("*",)}))
    with served(service) as url:
        reply = httpx.options(url + "/predict", headers={"origin": APP, **CALL})
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (204, "*")


@pytest.mark.parametrize("origin", [APP + "/", "app.example.com", "https://App.example.com", "https://*.example.com"])
def test_an_origin_is_as_browsers_send_it(origin: str) -> None:
    with pytest.raises(ParamsError, match="origins"):
        ServeParams().override({"origins": origin})
