"""Parts of a request's way through a replica: problems, bodies, routes, reserved tokens, labels of logs and metrics."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException

from raypath.components.core.errors import Unavailable
from raypath.components.inference.dynamic_batching import QueueFull
from raypath.components.serving.api import body as bodies
from raypath.components.serving.api.errors import InvalidRequest, application_path, problem
from raypath.components.serving.api.route_table import PUBLIC_ROUTES, RouteTable, required_permission
from raypath.components.serving.middleware.request_log import ROUTES, _id_of, _now, route_of
from raypath.components.serving.observability.request_context import (
    RequestContext,
    current_request,
    may_use,
    models_scope,
    request_scope,
)
from raypath.components.serving.params import ServeParams
from raypath.components.serving.replica.rate_share import update_share
from raypath.components.serving.replica.reservation import max_tokens, tokens_per_byte
from raypath.components.serving.replica.tokenizing import TokenizerThread


@pytest.mark.parametrize(
    ("status", "path", "errors", "error"),
    [
        (404, "/predict", None, None),
        (404, "/v2/models/x", None, "no"),
        (404, "/v2", None, "no"),
        (404, "/v1/x", None, {"type": "not_found_error", "param": None, "code": "model_not_found"}),
        (429, "/v1/x", None, {"type": "rate_limit_error", "param": None, "code": None}),
        (422, "/v1/x", [{"loc": ["input", 3], "msg": "m"}], {"type": "invalid_request_error", "param": "input.3"}),
        (422, "/v1/x", [{"loc": [], "msg": "m"}], {"type": "invalid_request_error", "param": None}),
        (418, "/v1/x", None, {"type": "invalid_request_error"}),
        (503, "/v1/x", None, {"type": "server_error", "code": None}),
    ],
)
def test_problems(status: int, path: str, errors: Any, error: Any) -> None:
    more = {} if errors is None else {"errors": errors}
    found = problem(status, "no", {"x": "y"}, path, **more)
    body = json.loads(bytes(found.body))
    assert (found.status_code, found.media_type, found.headers["x"]) == (status, "application/problem+json", "y")
    assert {"type": "about:blank", "status": status, "detail": "no", **more}.items() <= body.items()
    if isinstance(error, dict):
        assert {"message": "no", **error}.items() <= body["error"].items()
        assert set(body["error"]) == {"message", "type", "param", "code"}
    else:
        assert body.get("error") == error


def test_an_error_names_only_what_is_known() -> None:
    errors = [{"loc": ("text", 3, "SECRET"), "msg": "m", "input": "SECRET"}] * 12
    details = InvalidRequest(errors, ["text"]).details()
    assert details == [{"loc": ["text", 3, "?"], "msg": "m"}] * 10


@pytest.mark.parametrize(
    ("path", "root", "wanted"),
    [
        ("/m/predict", "/m", "/predict"),
        ("/m", "/m", ""),
        ("/mm/x", "/m", "/mm/x"),
        ("/x", "", "/x"),
        ("/x", "/m", "/x"),
    ],
)
def test_paths_below_a_prefix(path: str, root: str, wanted: str) -> None:
    assert application_path({"path": path, "root_path": root}) == wanted


def _http(call: Any, *args: Any, **named: Any) -> tuple[int, str]:
    with pytest.raises(HTTPException) as told:
        call(*args, **named)
    return told.value.status_code, told.value.detail


def test_shapes_of_bodies() -> None:
    for fits in (b"[" * 16, b'{"a": [1,2]}', b'"' + b"[," * 99 + b'"', b'"\\",,,,"', b"[]" * 99, b"[,,,]"):
        bodies.check_shape(fits, 4)
    assert _http(bodies.check_shape, b"[,,,,]", 4) == (422, "more than 4 values in the body")
    named = "more than 1,000 values in the body; serve.max_items sets this limit"
    assert _http(bodies.check_shape, b"," * 1_000, 1_000, "serve.max_items") == (422, named)
    deep = (422, "the body is nested too deep; wanted at most 16 levels")
    assert _http(bodies.check_shape, b"[" * 17, 4) == deep
    assert _http(bodies.check_shape, b'{"a":' * 17 + b"}" * 17, 4) == deep


def test_texts_of_bodies() -> None:
    settings = ServeParams(max_items=2, max_embeddings=3, max_characters=1_000)
    bodies.check_texts(["x" * 1_000] * 2, settings)
    bodies.check_texts(["x"] * 3, settings, "max_embeddings")
    assert _http(bodies.check_texts, [], settings) == (422, "text is an empty list; wanted at least one text")
    assert _http(bodies.check_texts, ["x"] * 3, settings) == (422, "3 texts; wanted at most 2 (serve.max_items)")
    many = (422, "4 texts; wanted at most 3 (serve.max_embeddings)")
    assert _http(bodies.check_texts, ["x"] * 4, settings, "max_embeddings") == many
    long = (422, "text 1 has 1,001 characters; wanted at most 1,000 (serve.max_characters)")
    assert _http(bodies.check_texts, ["x", "x" * 1_001], settings) == long


JSON = "application/json"


@pytest.mark.parametrize(
    ("headers", "status", "detail"),
    [
        ({}, 0, ""),
        ({"content-type": "Application/JSON; charset=UTF-8", "content-encoding": "Identity"}, 0, ""),
        ({"content-type": 'application/x+json; a=b; charset="us_ascii"'}, 0, ""),
        ({"content-length": "1000"}, 0, ""),
        ({"content-length": "٣٣٣٣٣"}, 0, ""),
        ({"content-encoding": "gzip"}, 415, f"the body is compressed; wanted plain {JSON}"),
        ({"content-type": "text/json"}, 415, f"the body is not json in UTF-8; wanted content-type: {JSON}"),
        (
            {"content-type": f"{JSON}; charset=latin-1"},
            415,
            f"the body is not json in UTF-8; wanted content-type: {JSON}",
        ),
        ({"content-length": "1001"}, 413, "the body is too large; wanted at most 1,000 bytes (serve.max_body)"),
    ],
)
def test_headers_of_bodies(headers: dict[str, str], status: int, detail: str) -> None:
    request: Any = SimpleNamespace(headers=headers)
    settings = ServeParams(max_body=1_000)
    if status:
        assert _http(bodies._check_headers, request, settings, JSON) == (status, detail)
    else:
        bodies._check_headers(request, settings, JSON)


def test_senders() -> None:
    client = SimpleNamespace(host="10.0.0.7")
    for scope, who, sender in (({"raypath.key": "k1"}, client, "k1"), ({}, client, "10.0.0.7"), ({}, None, "")):
        request: Any = SimpleNamespace(scope=scope, client=who)
        assert bodies._sender(request) == sender


def test_routes_and_scopes() -> None:
    table = RouteTable(["/", "/models/{name}/card", "/v1/embeddings", "/a.b"])
    found = {"/": "/", "/models/x/card": "/models/{name}/card", "/models/x/y/card": None, "/models//card": None}
    found |= {"/v1/embeddings": "/v1/embeddings", "/v1/embeddings/": None, "/a.b": "/a.b", "/axb": None}
    assert {path: table.find(path) for path in found} == found
    assert {required_permission(route) for route in PUBLIC_ROUTES} == {""}
    assert [required_permission(route) for route in ("/v1/embeddings", "/predict", None)] == [
        "embed",
        "predict",
        "read",
    ]


def _model(length: int, *columns: Any) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(max_length=length, columns=columns))


def test_tokens_that_a_request_may_have() -> None:
    from raypath.components.core.columns import Column

    settings = ServeParams(max_items=10, max_embeddings=100)
    models = [_model(128), _model(256)]
    assert [max_tokens(scope, models, settings) for scope in ("predict", "embed")] == [2_560, 25_600]
    assert max_tokens("predict", [], settings) == 0
    several = _model(8, Column(name="größe", stored="input.a"), Column(name="b", kind="number", stored="input.b"))
    assert [tokens_per_byte(each) for each in ([], models, [*models, several])] == [1, 1, 27]


def test_a_text_that_the_tokenizer_never_ends_fails_the_health_check() -> None:
    thread, began, go = TokenizerThread(1.0), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        assert go.wait(10)

    async def run() -> None:
        thread.check_health(0.0)
        task = asyncio.create_task(thread.run(4_000, work))
        assert await asyncio.to_thread(began.wait, 10)
        thread.check_health(60.0)
        with pytest.raises(Unavailable, match="the tokenizer has made no progress in 0 seconds; replace the replica"):
            thread.check_health(0.0)
        go.set()
        await task
        thread.check_health(0.0)

    asyncio.run(run())


def test_a_queue_of_texts() -> None:
    thread = TokenizerThread(1.0)
    tokenizer: Any = SimpleNamespace(encode=lambda texts: [[len(text)] for text in texts])
    ids, seconds = asyncio.run(thread.encode(tokenizer, ["a", "bb"]))
    assert (ids, seconds >= 0, thread.speed) == ([[1], [2]], True, 0.0)
    long = ["x" * 4_000]

    async def run() -> Any:
        found = await thread.encode(tokenizer, long)
        await asyncio.sleep(0.01)
        return found

    assert asyncio.run(run())[0] == [[4_000]]
    assert thread.speed > 0
    assert thread.wait(9_999) == 0.0, "nothing is queued"
    thread.speed, thread._characters = 1_000.0, 500
    assert (thread.wait(), thread.wait(250)) == (0.5, 0.75)
    with pytest.raises(QueueFull) as full:
        asyncio.run(thread.encode(tokenizer, long))
    assert full.value.seconds == 4.5
    done: Any = SimpleNamespace(cancelled=lambda: False, exception=lambda: None, result=lambda: (None, 0.5))
    thread._end(500, done)
    assert (thread._characters, thread.speed) == (0, pytest.approx(1_000.0))
    thread._end(0, SimpleNamespace(cancelled=lambda: False, exception=lambda: ValueError()))  # type: ignore[arg-type]
    thread._end(0, SimpleNamespace(cancelled=lambda: True))  # type: ignore[arg-type]
    assert thread.speed == pytest.approx(1_000.0)
    thread._end(2_000, done)
    assert thread.speed == pytest.approx(0.9 * 1_000 + 0.1 * 4_000)


@pytest.mark.parametrize(("running", "share"), [(2, 0.5), (9, 0.25), (0, 0.25), (None, 0.25)])
def test_the_share_of_a_replica(running: int | None, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components.serving.replica import rate_share

    def count(name: str) -> int:
        assert name == "m"
        if running is None:
            raise RuntimeError
        return running

    async def stop(seconds: float) -> None:
        assert seconds == 15.0
        raise asyncio.CancelledError

    monkeypatch.setattr(rate_share, "running_replicas", count)
    monkeypatch.setattr(rate_share.asyncio, "sleep", stop)
    limiter: Any = SimpleNamespace(share=1.0)
    spec: Any = SimpleNamespace(name="m", max_replicas=4)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(update_share(limiter, spec))
    assert limiter.share == share


def test_labels_of_paths_and_ids_of_requests() -> None:
    assert {route_of(f"/m/{name}") for name in ROUTES} == ROUTES
    assert [route_of(path) for path in ("/", "/m/SECRET", "")] == ["other"] * 3
    for value, kept in ((b"a.b_c-1", True), (b"x" * 64, True), (b"x" * 65, False), (b"", False), (b"a b", False)):
        found = _id_of([(b"other", b"z"), (b"x-request-id", value)])
        assert (found == value.decode()) is kept
        assert kept or len(found) == 32
    assert _now().endswith("Z")
    assert len(_now()) == len("2026-11-24T03:04:33.816Z")


def test_facts_about_a_request() -> None:
    request = RequestContext()
    assert (request.fields(), request.ms) == ({}, 0.0)
    request.served_by("m", 3)
    request.texts, request.tokens, request.key, request.error, request.id = 2, 31, "k1", "E", "hidden"
    assert list(request.fields().items()) == [
        *(
            ("texts", 2),
            ("tokens", 31),
            ("model", "m"),
            ("version", 3),
            ("role", "main"),
            ("key", "k1"),
            ("error", "E"),
        ),
    ]
    with request_scope(request):
        assert current_request() is request
    assert current_request().fields() == {}
    assert may_use("m")
    with models_scope(("m",)):
        assert (may_use("m"), may_use("n")) == (True, False)
    with models_scope(()):
        assert not may_use("m")
