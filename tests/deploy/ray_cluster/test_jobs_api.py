"""Ray's Jobs API as the client calls it, and what it makes of each answer; with a server that answers as it is told."""

from __future__ import annotations

import http.server
import json
from collections.abc import Iterator
from typing import Any

import pytest

from raypath.components import PlatformError, Unavailable, UserError
from raypath.deploy.ray_cluster.jobs_api import JobsApiClient, dashboard_url, token
from tests.local_http import answering

TOKEN_FIX = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to the file with the cluster's token"


class Dashboard:
    """Answers by method and path, and the requests that came: method, path, body, Authorization."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.requests: list[tuple[str, bytes, str | None]] = []
        self.url = ""


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.setenv("RAY_AUTH_TOKEN", " secret\n")
    made = Dashboard()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            line = f"{self.command} {self.path}"
            made.requests.append((line, body, self.headers.get("Authorization")))
            status, value = made.answers.get(line, (404, {}))
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *_: object) -> None:
            return

    with answering(Handler) as made.url:
        yield made


def test_version(dashboard: Dashboard) -> None:
    jobs = JobsApiClient(f"{dashboard.url}/")
    dashboard.answers["GET /api/version"] = (200, {"ray_version": "2.60.0"})
    assert jobs.version() == "2.60.0"
    lines = ["GET /api/version", "GET /api/jobs/no-such-job"]
    assert dashboard.requests == [(line, b"", "Bearer secret") for line in lines]
    assert jobs.has_token
    for answer in ({"version": "1"}, ["ray_version"], None):
        dashboard.answers["GET /api/version"] = (200, answer)
        with pytest.raises(UserError) as told:
            jobs.version()
        assert (
            str(told.value) == f"{dashboard.url} is not a Ray dashboard; give the head's URL, such as http://HEAD:8265"
        )


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (401, b"", UserError, f"the cluster at URL requires a token; {TOKEN_FIX}"),
        (403, b"", UserError, f"the cluster at URL rejects the token; {TOKEN_FIX}"),
        (404, b"", UserError, "URL is not a Ray dashboard; give the head's URL, such as http://HEAD:8265"),
        (
            500,
            b"Traceback\nno space " + b"x" * 400,
            PlatformError,
            f"URL answered 500: no space {'x' * 291}; see the head's logs",
        ),
        (503, b" ", PlatformError, "URL answered 503: no reason given; see the head's logs"),
    ],
)
def test_errors(dashboard: Dashboard, status: int, body: bytes, kind: type[Exception], says: str) -> None:
    dashboard.answers["POST /api/jobs/a%20b/stop"] = (status, body)
    with pytest.raises(kind) as told:
        JobsApiClient(dashboard.url).stop("a b")
    assert str(told.value) == says.replace("URL", dashboard.url, 1)
    assert dashboard.requests == [("POST /api/jobs/a%20b/stop", b"{}", "Bearer secret")]


def test_a_cluster_that_does_not_answer() -> None:
    with pytest.raises(Unavailable) as told:
        JobsApiClient("http://127.0.0.1:9").status("j")
    assert str(told.value).startswith("no Ray cluster answers at http://127.0.0.1:9 (")
    assert told.value.fix == "check --address, and that the head runs with its dashboard"
    assert JobsApiClient("http://127.0.0.1:9").is_open() is False


def test_whether_jobs_need_a_token(dashboard: Dashboard) -> None:
    for status, is_open in ((200, True), (401, False)):
        dashboard.answers["GET /api/jobs/"] = (status, [])
        assert JobsApiClient(dashboard.url).is_open() is is_open
    assert dashboard.requests == [("GET /api/jobs/", b"", None)] * 2, "asked without the token"


def test_nodes(dashboard: Dashboard) -> None:
    jobs, path = JobsApiClient(dashboard.url), "GET /api/v0/nodes?detail=1&limit=10000"
    assert jobs.nodes() == [], "this Ray lists none"
    nodes = [
        {"state": "ALIVE", "resources_total": {"CPU": 2.0}},
        {"state": "DEAD", "resources_total": {"CPU": 4.0}},
        {"state": "ALIVE"},
        {"state": "ALIVE", "resources_total": {"CPU": 8.0}},
    ]
    for answer, found in (
        ({"data": {"result": {"result": nodes}}}, [{"CPU": 2.0}, {"CPU": 8.0}]),
        ({"data": {}}, []),
        (None, []),
    ):
        dashboard.answers[path] = (200, answer)
        assert jobs.nodes() == found


def test_a_package_is_sent_once(dashboard: Dashboard) -> None:
    jobs, path = JobsApiClient(dashboard.url), "/api/packages/gcs/p.zip"
    dashboard.answers[f"PUT {path}"] = (200, {})
    assert jobs.upload("p.zip", b"data") == "gcs://p.zip"
    assert [(line, body) for line, body, _ in dashboard.requests] == [(f"GET {path}", b""), (f"PUT {path}", b"data")]
    dashboard.answers[f"GET {path}"] = (200, b"data")
    assert jobs.upload("p.zip", b"data") == "gcs://p.zip"
    assert [line for line, *_ in dashboard.requests[2:]] == [f"GET {path}"]


def test_a_job(dashboard: Dashboard) -> None:
    jobs = JobsApiClient(dashboard.url)
    assert jobs.status("j") is None
    assert jobs.log("j") == ""
    for answer, found in (
        ({"status": "RUNNING", "message": None}, ("RUNNING", "")),
        ({"status": "FAILED", "message": "no node"}, ("FAILED", "no node")),
    ):
        dashboard.answers["GET /api/jobs/j"] = (200, answer)
        assert jobs.status("j") == found
    dashboard.answers["GET /api/jobs/j/logs"] = (200, {"logs": "a\nb"})
    assert jobs.log("j") == "a\nb"
    dashboard.answers["POST /api/jobs/"] = (200, {"submission_id": "j"})
    jobs.submit("j", "python -m driver", {"working_dir": "gcs://p"}, {"raypath": "r"})
    line, body, _ = dashboard.requests[-1]
    assert (line, json.loads(body)) == (
        "POST /api/jobs/",
        {
            **{"submission_id": "j", "entrypoint": "python -m driver"},
            **{"runtime_env": {"working_dir": "gcs://p"}, "metadata": {"raypath": "r"}},
        },
    )


def test_the_rest_of_a_log_in_whole_lines(dashboard: Dashboard) -> None:
    stream: Any = JobsApiClient(dashboard.url).log_stream("j", 5.0)
    for text in ("one\ntw", "o\nthree"):
        stream._emit(text)
    assert list(stream.lines.queue) == ["one", "two"]
    dashboard.answers["GET /api/jobs/j/logs"] = (200, {"logs": "one\ntwo\nthree\nfour\n"})
    stream.drain()
    assert list(stream.lines.queue) == ["one", "two", "three", "four"]
    dashboard.answers["GET /api/jobs/j"] = (200, {"status": "SUCCEEDED"})
    assert stream.poll() == ("SUCCEEDED", "")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "--on ray needs the cluster's address; give --address http://HEAD:8265"),
        ("ray://head:1", "--address ray://head:1: not HTTP; give the dashboard's address, http://HEAD:8265"),
        ("https://", "--address https://: not HTTP; give the dashboard's address, http://HEAD:8265"),
    ],
)
def test_addresses_that_are_none(address: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(UserError) as told:
        dashboard_url(address)
    assert str(told.value) == says


def test_a_token_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nosuch")
    with pytest.raises(UserError) as told:
        token()
    assert str(told.value) == f"RAY_AUTH_TOKEN_PATH /nosuch: No such file or directory; {TOKEN_FIX}"
