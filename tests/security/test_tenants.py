"""Tenants on one endpoint: for a key of one, the models of the other do not exist, whatever it asks for and how."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from raypath.components.serving.api.route_table import PAGES, RULES
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.model_versions import LoadFault, Role
from tests.components.serving.server import served, service_of
from tests.security.durations import told_apart
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
TEXT, PROTOCOL = {"text": "tea"}, {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["tea"]}]}
OURS, THEIRS, HOMES, NONE = "oolong", "sencha", "matcha", "absent"
"""The main model, of tenant one; additional models of tenant two and of the home; a name of no model."""


@dataclass
class Place:
    """A running service, and keys by who holds them."""

    url: str
    service: Any
    keys: dict[str, str]
    client: httpx.Client

    def ask(self, who: str, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"x-api-key": self.keys[who]} if who in self.keys else {}
        return self.client.request(method, self.url + path, headers=headers, json=body)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tenants")
    store = KeyStore(folder / "keys")
    store.set_tenant("one", [OURS])
    store.set_tenant("two", [THEIRS])
    keys = {who: store.create(who, role="operator", tenant=who)[1] for who in ("one", "two")}
    keys |= {f"viewer {who}": store.create(f"viewer {who}", role="viewer", tenant=who)[1] for who in ("one", "two")}
    keys |= {"home": store.create("home")[1], "admin": store.create("admin", role="admin")[1]}
    models = {name: tiny_classifier(folder / name, seed=n) for n, name in enumerate((OURS, THEIRS, HOMES))}
    service = service_of(models, access=str(folder / "keys"))
    with served(service) as url, httpx.Client(timeout=30) as client:
        yield Place(url, service, keys, client)


def requests_of(route: str, name: str) -> tuple[str, str, Any]:
    """A request to a route of the table, for a model of this name where the route has one."""
    path = route.format(name=name, model=name, version="1")
    if route == "/v1/embeddings":
        return "POST", path, {"model": name, "input": "tea"}
    if route.startswith(("/v1/chat", "/v1/completions", "/v1/responses")):
        return "POST", path, {"model": name}
    if RULES[route] == "predict":
        return "POST", path, PROTOCOL if route.startswith("/v2") else TEXT
    return "GET", path, None


def _reply(response: httpx.Response, name: str) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers, without what differs between any two requests."""
    headers = {key: value for key, value in response.headers.items() if key not in ("x-request-id", "date")}
    headers.pop("content-length", None)
    return response.status_code, response.text.replace(name, "NAME"), headers


NAMED = [route for route in RULES if "{" in route or route == "/v1/embeddings"]
"""Routes that name a model."""


@pytest.mark.parametrize("route", NAMED)
@pytest.mark.parametrize(("who", "foreign"), [("one", THEIRS), ("two", OURS), ("home", OURS), ("one", HOMES)])
def test_a_foreign_model_gets_what_an_absent_one_gets(place: Place, route: str, who: str, foreign: str) -> None:
    replies = [_reply(place.ask(who, *requests_of(route, name)), name) for name in (foreign, NONE)]
    assert replies[0] == replies[1]
    assert replies[0][0] == 404


@pytest.mark.parametrize("route", sorted(RULES))
@pytest.mark.parametrize("who", ["two", "viewer two", "home", "nobody"])
def test_no_route_names_a_foreign_model(place: Place, route: str, who: str) -> None:
    """Of the table: a new route is tried without a change here."""
    foreign = [name for name in (OURS, THEIRS, HOMES) if name != {"two": THEIRS, "home": HOMES}.get(who.split()[-1])]
    for name in (NONE, *({THEIRS} - set(foreign))):
        response = place.ask(who, *requests_of(route, name))
        assert response.status_code < 500
        for other in foreign:
            assert other not in response.text, response.text
            assert other not in str(response.headers)


def test_a_tenant_uses_its_own_models_and_the_administrator_all(place: Place) -> None:
    own = {"one": [OURS], "two": [THEIRS], "home": [HOMES], "admin": [OURS, THEIRS, HOMES]}
    for who, names in own.items():
        assert [each["id"] for each in place.ask(who, "GET", "/v1/models").json()["data"]] == names
        for name in names:
            assert place.ask(who, "POST", f"/models/{name}/predict", TEXT).json()["model"] == name
        assert place.ask(who, "POST", "/predict", TEXT).status_code == (200 if OURS in names else 404)


def test_pages_of_a_tenants_model_are_for_its_keys(place: Place) -> None:
    for page in PAGES:
        found = {who: place.ask(who, "GET", page).status_code for who in ("nobody", "one", "two", "viewer one", "home")}
        assert found == {"nobody": 401, "one": 200, "two": 404, "viewer one": 200, "home": 404}, page


def test_health_tells_strangers_no_name_and_no_fault(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = place.service.models
    faults = {name: LoadFault(name=name, version=2, reason="broken") for name in (THEIRS, HOMES)}
    monkeypatch.setattr(manager, "model_faults", faults)
    found = place.ask("nobody", "GET", "/healthz").json()
    assert (found["name"], found["version"]) == ("", 1)
    assert THEIRS not in found["status"]
    assert HOMES in found["status"]
    assert Role.MAIN not in manager.faults


def test_usage_is_of_the_tenant_alone(place: Place) -> None:
    for who, path in (("one", "/predict"), ("two", f"/models/{THEIRS}/predict"), ("two", "/predict")):
        place.ask(who, "POST", path, TEXT)
    assert place.service.auth.meter.flush()
    for who, own, foreign in (("viewer one", "one", "two"), ("viewer two", "two", "one")):
        for by in ("key", "model", "day"):
            found = place.ask(who, "GET", f"/usage?by={by}").json()
            assert found["tenant"] == own
            text = json.dumps(found["usage"])
            names = {"key": foreign, "model": OURS if own == "two" else THEIRS, "day": HOMES}
            assert not re.search(rf"\b{names[by]}\b", text), text
    for since, status in (("0001-01-01", 200), ("9999-12-31", 200), ("yesterday", 422)):
        assert place.ask("viewer one", "GET", f"/usage?since={since}").status_code == status
    everything = place.ask("admin", "GET", "/usage").json()["usage"]
    assert {"one", "two"} <= {row["name"] for row in everything}
    alone = place.ask("home", "GET", "/usage").json()["usage"]
    assert {row["name"] for row in alone} <= {"home"}, "a key without a role sees itself alone"


@pytest.mark.timing
def test_the_time_of_a_response_does_not_tell_a_foreign_model(place: Place) -> None:
    kinds = {name: (f"/models/{name}/card", place.keys["two"]) for name in (OURS, NONE)}
    assert not told_apart(place.url, kinds, 404)


def test_a_model_has_one_tenant(tmp_path: Path) -> None:
    from raypath.components.core.errors import ParamsError

    store = KeyStore(tmp_path)
    store.set_tenant("one", ["a", "b"])
    with pytest.raises(ParamsError, match="model b belongs to tenant one"):
        store.set_tenant("two", ["b"])
    with pytest.raises(ParamsError, match="there is no tenant two"):
        store.create("x", tenant="two")
    store.set_tenant("one", ["a"])
    assert store.set_tenant("two", ["b"]).models == ("b",)
    key, _ = store.create("x", tenant="two")
    assert KeyStore(tmp_path).list() == (key,)
    tenancy = KeyStore(tmp_path).tenancy()
    assert [tenancy.sees(key, name) for name in "abc"] == [False, True, False]
    assert [tenancy.sees(None, name) for name in "abc"] == [False, False, True]
    store.revoke("x")
    assert [tenant.name for tenant in store.tenants()] == ["one", "two"], "a change of keys keeps the tenants"
