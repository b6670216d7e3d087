"""What clients of all kinds send to a language model's service: HEAD, odd content types, byte order marks, CORS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.components.serving.language.chat_server import LIMITS, language_service, served_chat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
ORIGIN = "https://app.example"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 2}
RESPOND = {"model": "m", "input": "hi", "temperature": 0, "max_output_tokens": 2}
ROUTES = [("/v1/chat/completions", ASK), ("/v1/responses", RESPOND)]


@pytest.fixture(scope="module")
def browser(chat_folder: Path) -> Iterator[httpx.Client]:
    """A client of a service that a page of ORIGIN may call."""
    service = language_service({"m": chat_folder}, LIMITS.model_copy(update={"origins": (ORIGIN,)}))
    with served_chat(service) as url, httpx.Client(base_url=url, timeout=20.0, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("path", ["/healthz", "/", "/docs", "/v1/models"])
def test_head_is_get_without_a_body(path: str, http: httpx.Client) -> None:
    found = http.head(path)
    assert (found.status_code, found.content) == (200, b"")
    assert found.headers["content-type"] == http.get(path).headers["content-type"]


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_forms_of_a_body(path: str, body: dict[str, object], http: httpx.Client) -> None:
    plain = json.dumps(body).encode()
    for kind, content in (
        ("application/json; charset=utf8", plain), ("application/json;charset=UTF-8", plain),
        ("application/json", b"\xef\xbb\xbf" + plain), ("Application/JSON", plain),
    ):  # fmt: skip
        found = http.post(path, content=content, headers={"content-type": kind})
        assert found.status_code == 200, (kind, found.text)
    wrong = http.post(path, content=plain, headers={"content-type": "text/plain"})
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (415, "invalid_request_error")
    broken = http.post(path, content=plain[:-2] + b'\xff"}', headers={"content-type": "application/json"})
    assert broken.status_code == 400


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_null_is_as_absent(path: str, body: dict[str, object], http: httpx.Client) -> None:
    names = ("stream", "tools", "tool_choice", "user", "metadata", "top_p", "seed", "stop", "store", "text", "unknown")
    found = http.post(path, json=body | dict.fromkeys(names))
    assert found.status_code == 200, found.text


def test_paths_of_other_services(http: httpx.Client) -> None:
    for path in ("/v1/embeddings", "/predict", "/v1/responses/resp_1", "/v1/audio/speech"):
        found = http.post(path, json={"model": "m", "input": "a"})
        assert found.status_code in (404, 405), path
        assert found.json()["detail"]
    assert http.get("/v1/responses/resp_1").status_code == 404, "nothing is stored"
    assert http.get("/v1/chat/completions").status_code == 405


def test_a_page_of_another_origin(browser: httpx.Client) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    for path, body in ROUTES:
        allowed = browser.options(path, headers={**asked, "access-control-request-headers": "authorization"})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (204, ORIGIN)
        other = browser.options(path, headers={**asked, "origin": "https://other.example"})
        assert other.status_code == 403
        streamed = browser.post(path, json=body | {"stream": True}, headers={"origin": ORIGIN})
        assert (streamed.status_code, streamed.headers["access-control-allow-origin"]) == (200, ORIGIN)
