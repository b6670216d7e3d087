"""A key's scope is bound to the route that answers, however its path is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raypath.components.serving.api.route_table import RouteTable, required_permission, routes_of
from raypath.components.serving.api.routes import build_api
from raypath.components.serving.metering.api_keys import KeyStore
from tests.components.serving.server import served, service_of
from tests.security.raw import JSON, ask, head, post
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
EMBED, PREDICT = {"model": "m", "input": "tea"}, {"text": "tea"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """URL of a service, a key for embeddings, one for predictions."""
    folder = tmp_path_factory.mktemp("keys")
    embed, predict = (KeyStore(folder).create(scope, [scope])[1] for scope in ("embed", "predict"))
    with served(service_of({"m": tiny_classifier(tmp_path_factory.mktemp("m"))}, access=str(folder))) as url:
        yield url, embed, predict


def test_a_key_for_predictions_gets_no_embeddings_by_another_spelling(place: tuple[str, str, str]) -> None:
    url, embed, predict = place
    assert ask(url, post("/v1/embeddings", EMBED, embed)) == 200
    for path in (
        *("/v1/embeddings%0A", "/v1/embeddings%0a", "/v1/embeddings%0D", "/v1/embeddings%00", "/v1%09/embeddings"),
        *("/v1/embeddings%7F", "/v1/embeddings%0A?a=b", "/%0A/v1/embeddings"),
    ):
        assert ask(url, post(path, EMBED, predict)) == 400, path
        assert ask(url, post(path, EMBED)) == 400, "before anything else, a missing key among it"
    for path in ("/v1/embeddings", "/v1%2Fembeddings", "/%76%31/embeddings", "/v1/%65mbeddings", "/v1/embeddings?x"):
        assert ask(url, post(path, EMBED, predict)) == 403, path
    others = (
        "//v1/embeddings",
        "/v1//embeddings",
        "/v1/embeddings/",
        "/V1/embeddings",
        "/v1/embeddings.",
        "/v1/x/../embeddings",
    )
    for path in (*others, "/v1/embeddings%250A", "/v1/embeddings;a", "/v1/embeddings%C2%85", "/v1/embeddings%E2%80%A8"):
        assert ask(url, post(path, EMBED, predict)) == 404, path
        assert ask(url, post(path, EMBED)) == 401, path


def test_a_key_for_embeddings_gets_no_predictions_by_another_spelling(place: tuple[str, str, str]) -> None:
    url, embed, predict = place
    assert ask(url, post("/predict", PREDICT, predict)) == 200
    for path in ("/predict", "/%70redict", "/models%2Fm/predict", "/models/m/predict", "/predict/", "//predict"):
        assert ask(url, post(path, PREDICT, embed)) == 403, path
    assert ask(url, post("/predict%0A", PREDICT, embed)) == 400


def test_no_private_route_is_open_by_another_spelling(place: tuple[str, str, str]) -> None:
    url, _, predict = place
    for path in ("/card%0A", "/healthz%0A", "/%00", "/docs%0a", "/healthz%1f"):
        assert ask(url, head("GET", path) + b"\r\n") == 400, path
    for path in ("/card", "/healthz/../card", "/x/healthz", "/healthz/", "/Healthz", "/v1/models", "/docs/x", "//"):
        assert ask(url, head("GET", path) + b"\r\n") == 401, path
    for method, path, status in (
        *(("HEAD", "/card", 401), ("OPTIONS", "/card", 401), ("PUT", "/v1/embeddings", 401), ("TRACE", "/card", 401)),
        *(("HEAD", "/healthz", 200), ("POST", "/healthz", 405), ("OPTIONS", "/", 405)),
    ):
        assert ask(url, head(method, path) + b"\r\n") == status, (method, path)
    for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"):
        assert ask(url, head(method, "/v1/embeddings", predict, JSON) + b"\r\n") == 403, method


def test_the_table_finds_the_route_that_the_router_takes(tmp_path: Path) -> None:
    """The routes of the service itself, so that a new one is in the table."""
    api = build_api(service_of({"m": tiny_classifier(tmp_path)}))
    table = routes_of(api)
    assert table.find("/v1/embeddings") == "/v1/embeddings"
    assert table.find("/v2/models/a b/versions/3/infer") == "/v2/models/{model}/versions/{version}/infer"
    assert table.find("/models/a%0A/predict") == "/models/{name}/predict"
    assert table.find("/v1/embeddings\n") is None
    assert table.find("") is None
    operations = list(api.openapi()["paths"])
    assert {table.find(path) for path in operations} == set(operations)
    assert required_permission(None) == "read"
    assert RouteTable(["/a.b"]).find("/axb") is None
