"""Tokens of an OpenID Connect issuer: a real issuer on loopback, real signatures, and the usual forgeries."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

jwt = pytest.importorskip("jwt")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: E402

from raypath.components.core.errors import ParamsError, Unavailable, UserError  # noqa: E402
from raypath.components.serving.metering import issuers  # noqa: E402
from raypath.components.serving.metering.api_keys import KeyStore  # noqa: E402
from raypath.components.serving.metering.issuers import IssuerStore  # noqa: E402
from raypath.components.serving.metering.usage import UsageMeter, read_usage  # noqa: E402
from raypath.components.serving.middleware import bearer_tokens  # noqa: E402
from raypath.components.serving.middleware.auth import AuthMiddleware  # noqa: E402
from raypath.deploy.cli import main as cli  # noqa: E402
from tests.components.serving.test_auth import ROUTES, App, _ask  # noqa: E402

AUDIENCE = "reviews"


class Provider:
    """An OpenID Connect issuer on loopback."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"first": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.requests: list[str] = []
        self.broken = False
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests.append(self.path)
                body = json.dumps(provider.document(self.path)).encode()
                self.send_response(500 if provider.broken else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/realm"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def document(self, path: str) -> Any:
        if path.endswith("openid-configuration"):
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        keys = []
        for kid, key in self.keys.items():
            kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
            algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
            keys.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", "alg": algorithm})
        return {"keys": keys}

    def token(self, kid: str = "first", key: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
        now = int(time.time())
        made = {"iss": self.url, "aud": AUDIENCE, "sub": "anna", "exp": now + 60, "scope": "openid predict", **claims}
        made = {name: value for name, value in made.items() if value is not None}
        text: str = jwt.encode(made, key or self.keys[kid], algorithm=algorithm, headers={"kid": kid})
        return text


@pytest.fixture(scope="module")
def shared() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def provider(shared: Provider) -> Iterator[Provider]:
    before = dict(shared.keys)
    yield shared
    shared.keys, shared.broken = before, False
    shared.requests.clear()


@pytest.fixture
def folder(tmp_path: Path, provider: Provider) -> Path:
    """A folder of keys that trusts the provider."""
    KeyStore(tmp_path / "access").create("plain")
    IssuerStore(tmp_path / "access").add(provider.url, AUDIENCE)
    return tmp_path / "access"


def middleware(folder: Path) -> AuthMiddleware:
    return AuthMiddleware(App(), folder, UsageMeter(folder / "usage", "r1"), ROUTES)


def ask(app: AuthMiddleware, *texts: str, path: str = "/predict") -> list[tuple[int, str]]:
    """Status and detail of requests with these credentials, one after another."""

    async def run() -> list[tuple[int, str]]:
        found = [await _ask(app, ("authorization", f"Bearer {text}"), path=path) for text in texts]
        return [(each.status, each.problem()["detail"] if each.status >= 400 else "") for each in found]

    return asyncio.run(run())


def test_a_token_is_a_key_with_its_scopes(folder: Path, provider: Provider) -> None:
    app = middleware(folder)
    assert ask(app, provider.token(), provider.token()) == [(200, "")] * 2
    assert ask(app, provider.token(), path="/v1/embeddings")[0] == (403, "this token is not for embed")
    assert ask(app, provider.token(scope="embed"), path="/v1/embeddings")[0] == (200, "")
    assert ask(app, provider.token(scope=["embed"]))[0][0] == 403
    assert ask(app, provider.token(scope=None))[0][0] == 403
    inner = app.app.scopes[0]
    assert inner["raypath.key"].startswith("oidc-")
    assert all(name != b"authorization" for name, _ in inner["headers"]), "the application could log it"
    app.meter.flush()
    used = read_usage(folder / "usage", app.keys.list()[0].created, by="key")
    assert {(row.what, row.name) for row in used} == {(inner["raypath.key"], "anna")}


def _unsigned(provider: Provider) -> str:
    payload = provider.token().split(".")[1]
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"first"}').decode().rstrip("=")
    return f"{none}.{payload}.AAAAAAAAAAAA"


def _hmac(provider: Provider) -> str:
    """The public key taken for a shared secret."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = provider.keys["first"].public_key().public_bytes(serialization.Encoding.PEM, form)
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"first"}').decode().rstrip("=")
    payload = provider.token().split(".")[1]
    signature = hmac.digest(pem, f"{header}.{payload}".encode(), "sha256")
    return f"{header}.{payload}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _tampered(provider: Provider) -> str:
    header, payload, signature = provider.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**claims, "scope": "admin predict"}).encode()).decode().rstrip("=")
    return f"{header}.{changed}.{signature}"


def _own_keys(provider: Provider) -> str:
    """A token that brings its own public key, and names places where it could be fetched."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    headers = {"jku": f"{provider.url}/jku", "x5u": f"{provider.url}/x5u", "jwk": {**public, "kid": "first"}}
    claims = {"iss": provider.url, "aud": AUDIENCE, "sub": "anna", "exp": int(time.time()) + 60, "scope": "predict"}
    text: str = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "first", **headers})
    return text


FORGERIES = {
    "a key of its own": (_own_keys, "not valid"),
    "no signature": (_unsigned, "not valid"),
    "public key as secret": (_hmac, "not valid"),
    "changed claims": (_tampered, "not valid"),
    "another key of the same id": (
        lambda p: p.token(key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        "not valid",
    ),
    "unknown key id": (lambda p: p.token("other", key=p.keys["first"]), "not known to its issuer"),
    "expired": (lambda p: p.token(exp=int(time.time()) - 60), "has expired"),
    "not yet valid": (lambda p: p.token(nbf=int(time.time()) + 600), "not valid"),
    "another audience": (lambda p: p.token(aud="other"), "for another audience"),
    "another issuer": (lambda p: p.token(iss="https://evil.example"), "is not trusted"),
    "no expiry": (lambda p: p.token(exp=None), "not valid"),
    "no audience": (lambda p: p.token(aud=None), "not valid"),
    "no subject": (lambda p: p.token(sub=None), "not valid"),
    "no issuer": (lambda p: p.token(iss=None), "is not trusted"),
    "no JSON": (lambda p: "aaaaaaaaaaaa.bbbbbbbbbbbb.cccccccccccc", "is not trusted"),
    "huge": (lambda p: p.token(pad="x" * 9000), "not known"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token_is_rejected_before_the_body(folder: Path, provider: Provider, forgery: str) -> None:
    make, reason = FORGERIES[forgery]
    app = middleware(folder)
    [(status, detail)] = ask(app, make(provider))
    assert (status, reason in detail) == (401, True), detail
    assert app.app.scopes == []
    assert not {"/realm/jku", "/realm/x5u"} & set(provider.requests), "addresses in a token are not asked"


def test_keys_of_the_issuer_rotate_without_a_restart(
    folder: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = middleware(folder)
    assert ask(app, provider.token())[0][0] == 200
    provider.keys["second"] = ec.generate_private_key(ec.SECP256R1())
    fresh = provider.token("second", algorithm="ES256")
    assert ask(app, fresh)[0] == (401, "the key of this token is not known to its issuer"), "asked 30 s ago at most"
    monkeypatch.setattr(bearer_tokens, "RETRY", 0.0)
    assert ask(app, fresh)[0][0] == 200
    before = provider.requests.count("/realm/keys")
    assert ask(app, *[fresh] * 20) == [(200, "")] * 20
    assert provider.requests.count("/realm/keys") == before, "public keys are kept"
    # An old list is fetched again beside requests, and a key that the issuer has withdrawn is rejected then.
    del provider.keys["second"]
    monkeypatch.setattr(bearer_tokens, "REFRESH", 0.0)

    async def until_rejected() -> int:
        for _ in range(200):
            if (status := (await _ask(app, ("authorization", f"Bearer {fresh}"))).status) != 200:
                return status
            await asyncio.sleep(0.01)
        return 200

    assert asyncio.run(until_rejected()) == 401


def test_an_issuer_that_is_away_keeps_its_known_keys(
    folder: Path, provider: Provider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = middleware(folder)
    assert ask(app, provider.token())[0][0] == 200
    provider.broken = True
    monkeypatch.setattr(bearer_tokens, "REFRESH", 0.0)
    monkeypatch.setattr(bearer_tokens, "RETRY", 0.0)
    with caplog.at_level(logging.ERROR):
        assert ask(app, provider.token(), provider.token("x", key=provider.keys["first"]))[1][0] == 401
    assert "cannot be fetched" in caplog.text
    assert ask(app, provider.token())[0][0] == 200


def test_roles_limits_and_models(folder: Path, provider: Provider) -> None:
    roles = {"analyst": ("predict",), "search": ("embed", "predict")}
    IssuerStore(folder).add(provider.url, AUDIENCE, claim="groups", roles=roles, requests_per_minute=2, models=("a",))
    app = middleware(folder)
    analyst = provider.token(groups=["analyst", "other"])
    assert [status for status, _ in ask(app, analyst, analyst, analyst)] == [200, 200, 429]
    assert ask(app, provider.token(sub="ben", groups=["analyst"]))[0][0] == 200, "a rate is for each user"
    assert ask(app, provider.token(sub="eve", groups=["search"]), path="/v1/embeddings")[0][0] == 200
    assert ask(app, provider.token(sub="zoe", groups=["predict"]))[0][0] == 403, "a role that is not named"


def test_an_issuer_that_is_removed_is_rejected(
    folder: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = middleware(folder)
    assert ask(app, provider.token())[0][0] == 200
    IssuerStore(folder).remove(provider.url)
    monkeypatch.setattr(issuers, "RELOAD_SECONDS", 0.0)
    assert ask(app, provider.token())[0] == (401, "the issuer of this token is not trusted")
    assert ask(app, "rp_no_key")[0] == (401, "this key is not known")
    with pytest.raises(UserError, match="is not trusted"):
        IssuerStore(folder).remove(provider.url)


def test_issuers_are_asked_over_https_only(tmp_path: Path, provider: Provider) -> None:
    store = IssuerStore(tmp_path)
    for url in ("http://issuer.example", "file:///etc/passwd", "ftp://x", ""):
        with pytest.raises(ParamsError, match="is not an https URL"):
            store.add(url, AUDIENCE)
    with pytest.raises(ParamsError, match="says that it is the issuer"):
        store.add(provider.url.replace("/realm", "/other"), AUDIENCE)
    provider.broken = True
    with pytest.raises(Unavailable, match="answers 500"):
        store.add(provider.url, AUDIENCE)
    assert store.list() == []


def test_the_commands(
    tmp_path: Path, provider: Provider, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    assert cli.main(["keys", "issuers"]) == 0
    assert cli.main(["keys", "trust", provider.url, "--audience", "x", "--role", "analyst=predict", "--rate", "5"]) == 0
    assert cli.main(["keys", "issuers"]) == 0
    out = capsys.readouterr().out
    assert "no issuers yet" in out
    assert "roles analyst in their claim scope" in out
    assert "analyst=predict" in out
    assert (tmp_path / "home" / "access" / "issuers.json").stat().st_mode & 0o777 == 0o600
    assert IssuerStore(tmp_path / "home" / "access").list()[0].requests_per_minute == 5
    assert cli.main(["keys", "trust", provider.url, "--audience", "x", "--role", "analyst"]) == 2
    assert cli.main(["keys", "distrust", provider.url]) == 0
    assert IssuerStore(tmp_path / "home" / "access").list() == []


def test_an_issuer_of_a_tenant(
    tmp_path: Path, provider: Provider, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "home"))
    trust = ["keys", "trust", provider.url, "--audience", AUDIENCE, "--claim", "groups", "--role", "team=operator"]
    assert cli.main([*trust, "--tenant", "one"]) == 2
    assert "there is no tenant one; make it: raypath keys tenant one" in capsys.readouterr().err
    assert cli.main(["keys", "tenant", "one", "--models", "m"]) == 0
    assert cli.main([*trust, "--tenant", "one", "--tenant-claim", "org"]) == 2
    assert cli.main([*trust, "--role", "guests=predict"]) == 2
    assert "give one kind for all" in capsys.readouterr().err
    for options, shown in ((["--tenant", "one"], "one"), (["--tenant-claim", "org"], "claim org")):
        assert cli.main([*trust, *options]) == 0
        assert cli.main(["keys", "issuers"]) == 0
        out = capsys.readouterr().out
        assert "team=operator" in out
        assert shown in out
    app = middleware(tmp_path / "home" / "access")
    token = provider.token(scope=None, groups=["team"], org="one")
    assert ask(app, token)[0] == (200, "")
    assert app.app.scopes[0]["raypath.holder"].tenant == "one"
    assert ask(app, provider.token(scope=None, groups=["team"]))[0] == (
        403,
        "this token names no tenant in its claim org",
    )
    app.meter.close()
    rows = read_usage(tmp_path / "home" / "access" / "usage", by="tenant")
    assert [(row.what, row.sums.requests, row.sums.rejected) for row in rows] == [("", 0, 1), ("one", 1, 0)]
