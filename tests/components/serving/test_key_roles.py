"""Roles: one table for keys and tokens, over every route; keys of before mean what they meant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import ParamsError
from raypath.components.serving.api.route_table import PUBLIC_ROUTES, RULES, RouteTable, routes_of
from raypath.components.serving.metering.api_keys import KeyStore, local_key
from raypath.components.serving.metering.holder import AccessError
from raypath.components.serving.metering.issuers import Issuer
from raypath.components.serving.metering.usage import UsageMeter
from raypath.components.serving.middleware.auth import AuthMiddleware
from raypath.components.serving.middleware.bearer_tokens import _key
from tests.components.serving.test_auth import App, _ask

MAY = {
    "viewer": {"read"},
    "operator": {"read", "predict", "embed", "chat"},
    "admin": {"read", "predict", "embed", "chat"},
}
"""What the pages of documentation promise, of what routes require."""


@pytest.fixture
def middleware(tmp_path: Path) -> Iterator[AuthMiddleware]:
    meter = UsageMeter(tmp_path / "usage", "r0", period=600, model="m")
    yield AuthMiddleware(App(), tmp_path, meter, RouteTable(RULES))
    meter.close()


def statuses(app: AuthMiddleware, text: str) -> dict[str, int]:
    """The status of a request to each route."""

    async def run() -> dict[str, int]:
        paths = {route: route.replace("{", "").replace("}", "") for route in RULES}
        return {route: (await _ask(app, ("x-api-key", text), path=path)).status for route, path in paths.items()}

    return asyncio.run(run())


@pytest.mark.parametrize("role", MAY)
def test_a_role_may_what_the_table_says_by_every_route(middleware: AuthMiddleware, tmp_path: Path, role: Any) -> None:
    _, text = KeyStore(tmp_path).create("anna", role=role)
    wanted = {route: 200 if not need or need in MAY[role] else 403 for route, need in RULES.items()}
    assert statuses(middleware, text) == wanted


@pytest.mark.parametrize("service", ["predict", "chat"])
@pytest.mark.parametrize("scopes", [("predict",), ("embed",), ("chat",), ("admin",), ("predict", "embed", "chat")])
def test_a_key_without_a_role_means_what_it_meant(tmp_path: Path, service: str, scopes: Any) -> None:
    """Every route required its own scope, or that of the service."""
    own = {"/v1/embeddings": "embed"} | {route: "chat" for route, need in RULES.items() if need == "chat"}
    meter = UsageMeter(tmp_path / "usage", "r0", period=600, model="m")
    routes = [route for route, need in RULES.items() if need != "predict" or service == "predict"]
    app = AuthMiddleware(App(), tmp_path, meter, RouteTable(routes, service))
    _, text = KeyStore(tmp_path).create("anna", scopes)
    found = statuses(app, text)
    for route in routes:
        needed = "" if route in PUBLIC_ROUTES else own.get(route, service)
        assert found[route] == (200 if not needed or needed in scopes else 403), route
    meter.close()


def test_a_file_of_before_is_read_and_one_without_roles_is_as_before(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, text = store.create("anna")
    written = json.loads((tmp_path / "keys.json").read_text())
    assert set(written) == {"keys"}
    assert not {"role", "tenant", "models"} & set(written["keys"][0])
    assert KeyStore(tmp_path).check(text, "predict", 0.0) == key
    assert (key.role, key.tenant, key.is_home_admin) == (None, None, False)
    local = KeyStore(tmp_path).check(local_key(tmp_path).read_text(), "admin", 0.0)
    assert local.is_home_admin
    assert local.role is None, "the home stays readable for an earlier Raypath"


def test_scopes_limit_a_role_and_exceed_none(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    _, text = store.create("anna", ["embed"], role="operator")
    store.check(text, "embed", 0.0)
    store.check(text, "read", 0.0)
    with pytest.raises(AccessError, match="not for predict; its role is operator"):
        store.check(text, "predict", 0.0)
    with pytest.raises(ParamsError, match="the role viewer is not for predict"):
        store.create("bert", ["predict"], role="viewer")
    with pytest.raises(ParamsError, match="the role operator is not for admin"):
        store.create("bert", ["admin"], role="operator")
    with pytest.raises(ParamsError, match="there is no role owner"):
        store.create("bert", (), role="owner")


def _issuer(**fields: Any) -> Issuer:
    made = {"issuer": "https://login.example.com", "audience": "a", "jwks_uri": "https://login.example.com/keys"}
    return Issuer(**{**made, "added": datetime.now(UTC), **fields})


CLAIMS = {"sub": "anna", "exp": 4e9, "groups": ["team", "guests"], "scope": "predict admin", "org": "harbour"}


def test_a_token_has_the_highest_role_of_its_values() -> None:
    issuer = _issuer(claim="groups", roles={"guests": "viewer", "team": "operator", "chiefs": "admin"})
    assert _key(issuer, CLAIMS).role == "operator"
    assert _key(issuer, {**CLAIMS, "groups": "guests"}).role == "viewer"
    nobody = _key(issuer, {**CLAIMS, "groups": ["others"]})
    assert (nobody.role, nobody.scopes) == (None, ())
    with pytest.raises(AccessError):
        nobody.require("read", "predict")
    with pytest.raises(ValueError, match="give one kind for all"):
        _issuer(claim="groups", roles={"guests": "viewer", "team": ["predict"]})


def test_a_word_of_the_issuer_makes_no_administrator() -> None:
    key = _key(_issuer(), CLAIMS)
    assert (key.scopes, key.role, key.is_home_admin) == (("predict",), None, False)


def test_a_token_belongs_to_the_tenant_of_its_issuer_or_of_its_claim() -> None:
    assert _key(_issuer(tenant="one"), CLAIMS).tenant == "one"
    named = _issuer(tenant_claim="org")
    assert _key(named, CLAIMS).tenant == "harbour"
    assert len({_key(named, {**CLAIMS, "org": org}).id for org in ("harbour", "port")}) == 2, "usage is apart"
    for wrong in (None, "", ["harbour"], 7, "../x", "a b", "x" * 65, "harbour\n"):
        with pytest.raises(AccessError, match="names no tenant") as caught:
            _key(named, {**CLAIMS, "org": wrong})
        assert caught.value.status == 403
    with pytest.raises(ValueError, match="give a tenant, or the claim"):
        _issuer(tenant="one", tenant_claim="org")


def test_a_route_without_a_rule_keeps_a_service_from_starting() -> None:
    from fastapi import FastAPI

    api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    api.add_api_route("/debug/{name}", lambda name: name)
    with pytest.raises(ValueError, match=r"routes without a rule in RULES: /debug/\{name\}"):
        routes_of(api)


def test_open_requests_of_a_tenant_are_counted_together(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.set_tenant("one", ["m"])
    texts = [store.create(f"k{n}", tenant="one")[1] for n in range(4)]
    _, other = store.create("other")
    meter = UsageMeter(tmp_path / "usage", "r0", period=600, model="m")
    app = AuthMiddleware(App(), tmp_path, meter, RouteTable(RULES), max_open=2)

    async def run() -> list[int]:
        answers = await asyncio.gather(*(_ask(app, ("x-api-key", text)) for text in (*texts, other)))
        return [answer.status for answer in answers]

    assert asyncio.run(run()) == [200, 200, 429, 429, 200]
    assert asyncio.run(run()) == [200, 200, 429, 429, 200], "ended requests do not count"
    meter.close()
