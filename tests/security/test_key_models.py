"""A key that names models reaches these alone, by every route, and sees no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from raypath.components.serving.metering.api_keys import KeyStore
from tests.components.serving.server import served, service_of
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
CASES = [(None, ["m", "n"]), (("m",), ["m"]), (("n",), ["n"]), (("n", "m"), ["m", "n"]), (("x",), [])]
"""Models of a key, and those it sees."""
TEXT, PROTOCOL = {"text": "tea"}, {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["tea"]}]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """URL of a service of m, and of n as an additional model; a key for each of CASES."""
    folder = tmp_path_factory.mktemp("models")
    keys = [KeyStore(folder / "keys").create(f"key {n}", models=case[0])[1] for n, case in enumerate(CASES)]
    models = {"m": tiny_classifier(folder / "m"), "n": tiny_classifier(folder / "n", seed=1)}
    with served(service_of(models, access=str(folder / "keys"))) as url:
        yield url, keys


def requests(name: str) -> list[tuple[str, str, object]]:
    """Method, path and body of every request that names a model."""
    return [
        ("POST", f"/models/{name}/predict", TEXT),
        ("GET", f"/models/{name}/card", None),
        ("GET", f"/v1/models/{name}", None),
        ("POST", "/v1/embeddings", {"model": name, "input": "tea"}),
        ("GET", f"/v2/models/{name}", None),
        ("GET", f"/v2/models/{name}/ready", None),
        ("GET", f"/v2/models/{name}/versions/1", None),
        ("GET", f"/v2/models/{name}/versions/1/ready", None),
        ("POST", f"/v2/models/{name}/infer", PROTOCOL),
        ("POST", f"/v2/models/{name}/versions/1/infer", PROTOCOL),
    ]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_key_reaches_its_models_alone(place: tuple[str, list[str]], case: int) -> None:
    url, key, seen = place[0], place[1][case], CASES[case][1]
    with httpx.Client(base_url=url, headers={"x-api-key": key}, timeout=30) as client:
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == seen
        main = {client.post("/predict", json=TEXT).status_code, client.get("/card").status_code}
        assert main == ({200} if "m" in seen else {403})
        for name in ("m", "n"):
            for method, path, body in requests(name):
                reply = client.request(method, path, json=body)
                assert reply.status_code == (200 if name in seen else 404), (method, path)
                if name not in seen:
                    detail = reply.json()["detail"]
                    assert detail.partition("served models: ")[2] == ", ".join(seen), detail


def test_every_route_that_selects_a_model_is_tried(place: tuple[str, list[str]]) -> None:
    paths = httpx.get(f"{place[0]}/openapi.json").json()["paths"]
    tried = {path for _, path, _ in requests("m")} | {"/predict", "/card"}
    named = {path.format(name="m", model="m", version="1") for path in paths}
    assert named - tried == {"/healthz", "/usage", "/v1/models", "/v2", "/v2/health/live", "/v2/health/ready"}


def test_keys_of_before_are_for_all_models(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, _ = store.create("anna")
    assert key.models is None
    assert "models" not in (tmp_path / "keys.json").read_text(), "an earlier Raypath can read it"
    assert KeyStore(tmp_path).list()[0].models is None
    assert store.create("none", models=())[0].models == ()
