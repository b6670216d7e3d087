"""The client against a real HTTP server that is busy, broken or slow as a test says."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import BaseModel

from raypath import Client, RequestError, TooManyRequests, Unavailable, UserError

GOOD = {"model": "m", "version": 3, "predictions": [{"label": 7, "score": 0.5, "scores": {"7": 0.5, "8": 0.5}}]}
Response = tuple[int, dict[str, str], Any]
Call = Callable[[Client], Any]


class Scripted(ThreadingHTTPServer):
    """Gives the responses of `script` one after another, then GOOD; status 0 breaks the connection."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Response] = []
        self.seen: list[tuple[str, str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        server = self.server
        assert isinstance(server, Scripted)
        server.seen.append((self.path, self.headers.get("authorization", ""), body))
        status, headers, found = server.script.pop(0) if server.script else (200, {}, GOOD)
        if not status:
            self.close_connection = True
            return
        time.sleep(float(headers.pop("sleep", 0)))
        data = json.dumps(found).encode()
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def _sync(client: Client) -> Any:
    with client:
        return client.predict("tea")


def _async(client: Client) -> Any:
    async def call() -> Any:
        async with client:
            return await client.predict_async("tea")

    return asyncio.run(call())


BOTH = pytest.mark.parametrize("call", [_sync, _async])


@BOTH
@pytest.mark.parametrize("first", [(429, {"retry-after": "1"}, {}), (503, {"retry-after": "1"}, {})])
def test_a_busy_endpoint_is_asked_again_when_it_says(server: Scripted, call: Call, first: Response) -> None:
    server.script = [first]
    began = time.monotonic()
    found = call(Client(server.url, "rp_k"))
    assert time.monotonic() - began >= 1.0
    assert (found.model, found.version, found[0].label, len(found)) == ("m", 3, 7, 1)
    assert server.seen == [("/predict", "Bearer rp_k", {"text": "tea"})] * 2


@BOTH
def test_broken_connections_and_failing_replicas_are_tried_again(server: Scripted, call: Call) -> None:
    server.script = [(0, {}, None), (502, {}, {}), (0, {}, None)]
    assert call(Client(server.url))[0].label == 7
    assert len(server.seen) == 4


@BOTH
def test_attempts_end(server: Scripted, call: Call) -> None:
    server.script = [(503, {}, {"detail": "no replica"})] * 9
    with pytest.raises(Unavailable, match=r"503 after 3 attempts: no replica"):
        call(Client(server.url, attempts=3))
    assert len(server.seen) == 3


@BOTH
def test_a_wait_beyond_the_timeout_is_an_error_at_once(server: Scripted, call: Call) -> None:
    server.script = [(429, {"retry-after": "3600"}, {"detail": "this month's 5 requests are used up"})]
    began = time.monotonic()
    with pytest.raises(TooManyRequests, match="5 requests are used up; try again in 3600 s") as caught:
        call(Client(server.url, timeout=30))
    assert time.monotonic() - began < 5
    assert caught.value.retry_after == 3600
    assert pickle.loads(pickle.dumps(caught.value)).retry_after == 3600


@BOTH
@pytest.mark.parametrize(("status", "fix"), [(401, "keys create"), (404, "raypath status"), (422, "")])
def test_a_rejected_request_is_not_sent_again(server: Scripted, call: Call, status: int, fix: str) -> None:
    server.script = [(status, {}, {"detail": "text: too long"})]
    with pytest.raises(RequestError, match=f"rejected the request with {status}: text: too long") as caught:
        call(Client(server.url))
    assert caught.value.status == pickle.loads(pickle.dumps(caught.value)).status == status
    assert fix in str(caught.value)
    assert isinstance(caught.value, UserError)
    assert len(server.seen) == 1


@BOTH
def test_a_slow_response_ends_with_the_timeout(server: Scripted, call: Call) -> None:
    server.script = [(200, {"sleep": "2"}, GOOD)]
    with pytest.raises(Unavailable, match="did not respond"):
        call(Client(server.url, timeout=0.3))
    assert len(server.seen) == 1


@BOTH
def test_nobody_there_is_an_error_within_the_timeout(call: Call) -> None:
    with pytest.raises(Unavailable, match=r"did not respond \(ConnectError"):
        call(Client("http://127.0.0.1:9", timeout=1.0))


def test_another_model_and_a_response_of_ones_own(server: Scripted) -> None:
    class Spans(BaseModel):
        spans: list[str]

    server.script = [(200, {}, {"spans": ["a"]}), (200, {}, {"answer": 1})]
    with Client(server.url + "/", model="side") as client:
        assert client.predict(("a", "b"), Spans).spans == ["a"]
        with pytest.raises(UserError, match="not a Predictions"):
            client.predict("a")
    assert server.seen[0] == ("/models/side/predict", "", {"text": ["a", "b"]})


def test_fields_of_a_task_of_ones_own_are_attributes(server: Scripted) -> None:
    server.script = [(200, {}, {"model": "m", "version": 1, "predictions": [{"stars": 4}]})]
    with Client(server.url) as client:
        found: Any = client.predict("tea")[0]
    assert found.stars == 4
    assert found.label is None


def test_the_key_comes_from_the_environment(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_API_KEY", "rp_env")
    with Client(server.url) as client:
        client.predict("tea")
    assert server.seen[0][1] == "Bearer rp_env"


def test_a_wrong_url_is_an_error() -> None:
    with pytest.raises(UserError, match="wanted http://"):
        Client("localhost:8000")


def test_the_client_imports_nothing_heavy() -> None:
    code = (
        "import raypath, sys; raypath.Client('http://127.0.0.1:9').close();"
        "print(sorted({'ray', 'torch', 'mlflow', 'numpy', 'fastapi', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
