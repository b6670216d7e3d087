"""URLs, routes, checks and smoke tests of an endpoint that is being deployed, with a server of fixed answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from raypath.components import Release, Unavailable, UserError
from raypath.components.core.artifacts import Endpoint
from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata
from raypath.components.registry import client as registry
from raypath.components.registry import live
from raypath.components.serve import _access, _alive, _permit, _request_ms, _spec, _tasks
from raypath.components.serving.control import client, proxy, rollout
from raypath.components.serving.control.rollout import _reason
from raypath.components.serving.params import ServeParams
from raypath.components.serving.spec import EndpointSpec
from tests.local_http import answering


class Handler(BaseHTTPRequestHandler):
    """Answers what `Handler.answers` has for a path, and keeps what came."""

    answers: ClassVar[dict[str, tuple[int, Any]]] = {}
    came: ClassVar[list[tuple[str, str, bytes, str | None]]] = []

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.came.append((self.command, self.path, body, self.headers.get("Authorization")))
        status, value = self.answers.get(self.path, (404, {}))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def url() -> Iterator[str]:
    Handler.answers, Handler.came = {}, []
    with answering(Handler) as url:
        yield url


def test_health_and_predictions(url: str) -> None:
    assert client.health(url) is None
    for answer, served in (({"name": "m", "version": 3}, True), ({"name": "m", "version": 2}, False), ([3], False)):
        Handler.answers["/healthz"] = (200, answer)
        assert client.serves_version(url, "m", 3) is served
    Handler.answers["/healthz"] = (503, {"name": "m", "version": 3})
    assert not client.serves_version(url, "m", 3)
    assert not client.serves_version("http://127.0.0.1:9", "m", 3)
    Handler.answers["/predict"] = (200, {"label": "a"})
    assert client.request_json(f"{url}/predict", b'{"text": "x"}', 5.0, "rp_key") == {"label": "a"}
    assert Handler.came[-1] == ("POST", "/predict", b'{"text": "x"}', "Bearer rp_key")
    assert Handler.came[0] == ("GET", "/healthz", b"", None)


def test_the_own_endpoint_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def send(*args: Any, **options: Any) -> Any:
        sent.append((args, options))
        raise ConnectionError

    monkeypatch.setattr(client.http, "send", send)
    assert client.health("http://10.0.0.1:1") is None
    options = {"body": None, "headers": {}, "timeout": 2.0, "proxy": False}
    assert sent == [(("GET", "http://10.0.0.1:1/healthz"), options)]


def test_routes(url: str) -> None:
    assert proxy.choose_route(url, "m", None) == "/"
    Handler.answers["/-/routes"] = (200, {"/": "a", "/n": "b"})
    for name, wanted, route in (
        ("m", None, "/m"),
        ("a", None, "/"),
        ("b", None, "/n"),
        ("b", "/x", "/x"),
        ("b", "/n", "/n"),
    ):
        assert proxy.choose_route(url, name, wanted) == route
    with pytest.raises(UserError) as told:
        proxy.choose_route(url, "m", "/n")
    assert str(told.value) == "m cannot be served at /n, where b is; set another one with -s serve.route=/..."
    assert [
        proxy.has_route(f"{url}{path}", name) for path, name in (("", "a"), ("/n", "b"), ("/n", "a"), ("/x", "b"))
    ] == [*(True, True, False, False)]


@pytest.mark.parametrize(
    ("where", "access", "says"),
    [
        ("http://localhost:1", "", ""),
        ("https://10.0.0.1:1", "/keys", ""),
        (
            "https://10.0.0.1:1",
            "",
            "https://10.0.0.1:1 is reachable from other machines, and no key would be required; leave serve.open unset",
        ),
        (
            "http://10.0.0.1:1",
            "/keys",
            "http://10.0.0.1:1 is reachable from other machines, and not https; raypath up --listen ... --tls ...",
        ),
    ],
)
def test_public_access(where: str, access: str, says: str) -> None:
    if not says:
        return proxy.check_public_access(where, access)
    with pytest.raises(UserError) as told:
        proxy.check_public_access(where, access)
    assert str(told.value) == says


def test_limits_for_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", "RAYPATH_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    proxy.write_request_limits("m", 9, 4)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", str(tmp_path / "none" / "haproxy.cfg"))
    proxy.write_request_limits("m", 9, 4)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", str(tmp_path / "haproxy.cfg"))
    proxy.write_request_limits("m", 9, 4)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"m.ongoing": "9\n", "m.body": "4\n"}
    assert proxy._controller_options() is None
    monkeypatch.setenv("RAYPATH_PRECISION", "fp32")
    assert proxy._controller_options() == {"runtime_env": {"env_vars": {"RAYPATH_PRECISION": ""}}}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (["", " \n"], "no reason given"),
        (["deploying\nmore"], "deploying"),
        (
            ["deploying", "  Traceback:\n  ray.exceptions.RayActorError: died\nlast"],
            "ray.exceptions.RayActorError: died",
        ),
        (["x\nAError: 1\nraypath.Unavailable: 2\nat: 3"], "raypath.Unavailable: 2"),
        (["y" * 400], "y" * 300),
    ],
)
def test_reasons_of_serve(messages: list[str], reason: str) -> None:
    assert _reason(messages) == reason


def test_a_champion_stays_where_the_registry_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    deployed: list[tuple[str, Any]] = []

    def demote(tracking: str, name: str, version: int, before: int) -> int:
        asked.append((tracking, name, version, before))
        if tracking == "away":
            raise Unavailable("no answer", fix="")
        return 2

    monkeypatch.setattr(rollout.aliases, "demote", demote)
    monkeypatch.setattr(rollout, "_plans", lambda hosts, main, running: {spec.name: dict(main) for spec in hosts})
    monkeypatch.setattr(rollout, "deploy", lambda spec, plan, swap: deployed.append((spec.name, plan)))

    def host(name: str, tracking: str) -> EndpointSpec:
        return EndpointSpec(name=name, tracking=tracking, url="http://x", route="/", serve=ServeParams(), options={})

    assert rollout._demote([host("m", "away")], "m", 3, 2, {"m": 3}) == 3
    assert deployed == []
    hosts = [host("m", "t"), host("n", "t"), host("o", "t")]
    assert rollout._demote(hosts, "m", 3, 3, {"m": 3, "n": 5, "o": 0}) == 2
    assert asked == [("away", "m", 3, 2), ("t", "m", 3, 0)]
    main = {"m": 2, "n": 5, "o": 0}
    assert deployed == [("m", main), ("n", main)], "those that serve a version"
    deployed.clear()
    assert rollout._demote(hosts[1:2], "m", 3, 1, {"n": 5}) == 2
    assert deployed == [("n", {"n": 5})], "an endpoint that has it as an additional model"


def _release(**changes: Any) -> Release:
    fields = {"name": "m", "version": 3, "alias": "champion", "reason": "", "serving": 3, "metrics": {}, **changes}
    return Release(**fields)


def test_what_a_replica_is_created_with(make_context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYPATH_TASKS", raising=False)
    ctx = make_context("serve", api_keys=tmp_path / "keys", signing=tmp_path / "s", predictions=tmp_path / "p")
    metadata = ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8, label_kind=LabelKind.STRING)
    release, params = _release(task="my:Task"), ServeParams(tasks=("b:T", "my:Task"), log_predictions=0.5)
    spec = _spec(ctx, release, metadata, params, "http://x:1", "/m/")
    assert (spec.name, spec.url, spec.route, spec.signing) == ("m", "http://x:1/m", "/m/", str(tmp_path / "s"))
    assert (spec.access, spec.predictions) == (str(tmp_path / "keys"), str(tmp_path / "p" / "m"))
    assert (spec.tasks, spec.serve.threads) == (("my:Task", "b:T"), 2)
    assert (spec.task, spec.label_kind, spec.tracking) == ("text_classification", "string", ctx.tracking.uri)
    plain = _spec(make_context("serve"), _release(), metadata, ServeParams(), "http://x:1", "/")
    assert (plain.url, plain.signing, plain.access, plain.predictions, plain.tasks) == ("http://x:1", "", "", "", ())
    assert _access(ctx, ServeParams(open=True)) == ""
    assert _tasks(_release(task="text_classification"), ServeParams()) == ()


def test_an_endpoint_is_alive_while_it_serves_its_version(make_context: Any, url: str) -> None:
    ctx, endpoint = make_context("serve"), Endpoint(url=url, name="m", version=3)
    assert not _alive(ctx, endpoint)
    Handler.answers["/healthz"] = (200, {"name": "m", "version": 3})
    assert _alive(ctx, endpoint)
    assert not _alive(ctx, endpoint.model_copy(update={"scales_to_zero": True})), "no registry is known"


def test_smoke_tests(make_context: Any, url: str) -> None:
    ctx, request = make_context("serve"), {"text": "x"}
    with pytest.raises(Unavailable) as told:
        _request_ms(ctx, f"{url}/predict", ServeParams(), request)
    assert str(told.value) == f"{url}/predict is healthy but rejects a smoke-test request; see the logs of Ray Serve"
    Handler.answers["/predict"], Handler.came = (200, {}), []
    assert 0 < _request_ms(ctx, f"{url}/predict", ServeParams(), request) < 5_000
    assert Handler.came == [("POST", "/predict", b'{"text": "x"}', None)] * 5


def test_only_a_likely_challenger_is_permitted(
    make_context: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    permitted: list[Any] = []
    monkeypatch.setattr(registry, "mlflow_client", lambda _: nullcontext("client"))
    monkeypatch.setattr(registry, "read_aliases", lambda *_: {"challenger": 4, "other": 5})
    monkeypatch.setattr(live, "permit", lambda *args: permitted.append(args))
    ctx, decide = make_context("serve"), {"decide": True, "shadow": "challenger"}
    for version, chance, params in (
        (4, 0.75, ServeParams(shadow="challenger")),
        (3, 0.75, ServeParams(**decide)),
        (5, 0.75, ServeParams(**decide)),
        (4, 0.74, ServeParams(**decide)),
    ):
        _permit(ctx, _release(version=version, chance=chance), params)
    assert permitted == []
    assert caplog.messages == [
        "live requests do not decide on version 4: its chance of being better on the test rows is 74%, wanted 75% "
        "(serve.decide_chance)"
    ]
    for params in (ServeParams(**decide), ServeParams(decide=True, canary="challenger:5")):
        _permit(ctx, _release(version=4, chance=0.75), params)
    assert permitted == [("client", ctx.tracking.experiment, "m", 4, 3, ctx.signing)] * 2
