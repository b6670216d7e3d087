"""Over a real HTTP server: several models at one address, their cards, and what is refused before it is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import HTTPException

from raypath.components.serving.api.body import DEPTH, check_shape
from raypath.components.serving.model_versions import Role
from tests.components.serving import wrong_requests
from tests.components.serving.server import served, service_of
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """m, and n of sets of labels; m was registered with its figures."""
    place = tmp_path_factory.mktemp("models")
    models = {
        "m": tiny_classifier(place / "m", base="package://tiny"),
        "n": tiny_classifier(place / "n", labels=("red", "green"), kind="set", seed=1, thresholds=(0.3, 0.5)),
    }
    (place / "m" / "metrics.json").write_text('{"macro_f1": 0.75}')
    with served(service_of(models)) as url:
        yield url


def send(url: str, *parts: bytes, pause: float = 0.0) -> tuple[int, dict[str, str], Any]:
    """Bytes as they are, and what comes back: status, headers, body."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as line:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # of what is sent after the answer
            for part in parts:
                line.sendall(part)
                time.sleep(pause)
        found = b""
        while b"\r\n\r\n" not in found or _lacks(found):
            more = line.recv(65_536)
            if not more:
                break
            found += more
    head, _, body = found.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, json.loads(body)


def _lacks(found: bytes) -> bool:
    head, _, body = found.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    return len(body) < int(length or 0)


def test_each_model_answers_at_its_own_address(url: str) -> None:
    m = httpx.post(url + "/predict", json={"text": "tea"}).json()
    assert httpx.post(url + "/models/m/predict", json={"text": "tea"}).json() == m
    n = httpx.post(url + "/models/n/predict", json={"text": ["tea", "cup"]}).json()
    assert (m["model"], n["model"]) == ("m", "n")
    assert set(n["predictions"][0]["scores"]) == {"red", "green"}
    infer = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["tea", "cup"]}]}
    scores = httpx.post(url + "/v2/models/n/infer", json=infer).json()["outputs"][0]["data"]
    assert scores == pytest.approx([p for row in n["predictions"] for p in row["scores"].values()], abs=1e-5)
    vectors = [
        httpx.post(url + "/v1/embeddings", json={"model": name, "input": "tea"}).json()["data"][0]["embedding"]
        for name in "mn"
    ]
    assert sum(a * b for a, b in zip(*vectors, strict=True)) < 0.9, "each has its own encoder"
    for path in ("/models/other/predict", "/v2/models/other/infer", "/models/other/card"):
        reply = httpx.get(url + path) if path.endswith("card") else httpx.post(url + path, json={})
        assert (reply.status_code, reply.json()["detail"]) == (404, "no model other; served models: m, n")


def test_a_card_tells_what_a_version_is(url: str) -> None:
    card = httpx.get(url + "/card").json()
    assert card == httpx.get(url + "/models/m/card").json()
    assert (card["name"], card["version"], card["base"]) == ("m", 1, "package://tiny")
    assert (card["labels"], card["metrics"]) == (["bad", "good", "ok"], {"macro_f1": 0.75})
    other = httpx.get(url + "/models/n/card").json()
    assert (other["label_kind"], other["thresholds"], other["metrics"]) == ("set", [0.3, 0.5], {})


def test_a_card_is_never_the_canarys(tmp_path: Path) -> None:
    service = service_of({"m": tiny_classifier(tmp_path)})
    versions = service.models
    versions.active[Role.CANARY] = dataclasses.replace(versions.main, version=2)
    versions.plan = versions.plan.model_copy(update={"canary_percent": 100.0})
    with served(service) as url:
        assert httpx.post(url + "/predict", json={"text": "tea"}).json()["version"] == 2
        for path in ("/card", "/models/m/card"):
            assert httpx.get(url + path).json()["version"] == 1, path


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        (b"GET /" + b"x" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "at most 4,096 bytes"),
        (b"GET /?" + b"x" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "at most 4,096 bytes"),
        (HEAD + b"A: b\r\n" * 200 + b"\r\n", 431, "202 headers; wanted at most 100"),
        (HEAD + b"A: " + b"b" * 40_000 + b"\r\n\r\n", 431, "at most 32,768 bytes"),
        (HEAD + b"Content-Length: 1000000000\r\n\r\n{", 413, "at most 100,000 bytes"),
        (HEAD + b"Content-Length: 5\r\nContent-Encoding: br\r\n\r\n{", 415, "compressed"),
        (HEAD.replace(b"/json", b"/json; charset=utf-16") + b"Content-Length: 5\r\n\r\n{", 415, "is not json in UTF-8"),
        (HEAD.replace(b"application/json", b"text/plain") + b"Content-Length: 5\r\n\r\n{", 415, "is not json"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"7530\r\n" + b"x" * 30_000 + b"\r\n", 408, "within 1 sec"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"7530\r\n" + b"x" * 30_000 + b"\r\n") * 4, 413, "at most"),
    ],
)
def test_it_is_refused_before_the_rest_is_sent(url: str, sent: bytes, status: int, told: str) -> None:
    found, headers, problem = send(url, sent)
    assert (found, headers["content-type"]) == (status, "application/problem+json")
    assert told in problem["detail"]
    assert headers["connection"] == "close", "what was not read must not be taken for a request"


def test_a_body_that_trickles_in_is_not_waited_for(url: str) -> None:
    status, headers, problem = send(url, HEAD + b"Content-Length: 50\r\n\r\n", *[b" "] * 14, pause=0.1)
    assert (status, headers["connection"]) == (408, "close")
    assert problem["title"] == "Request Timeout"


def test_a_client_that_goes_leaves_nothing_behind(url: str) -> None:
    place = urlsplit(url)
    for _ in range(20):
        with socket.create_connection((place.hostname or "", place.port or 0)) as line:
            line.sendall(HEAD + b'Content-Length: 50\r\n\r\n{"text')
    assert httpx.post(url + "/predict", json={"text": "tea"}).status_code == 200


@wrong_requests.each(wrong_requests.PREDICT)
def test_a_wrong_request_is_rejected(url: str, wrong: wrong_requests.Wrong) -> None:
    with httpx.Client(base_url=url) as client:
        wrong_requests.check(client, wrong)


@wrong_requests.each(wrong_requests.JSON)
def test_odd_json_is_rejected_at_every_address(url: str, wrong: wrong_requests.Wrong) -> None:
    with httpx.Client(base_url=url) as client:
        for path in ("/predict", "/models/n/predict", "/v2/models/m/infer"):
            wrong_requests.check(client, wrong, path)


def test_brackets_and_commas_in_a_text_are_text() -> None:
    check_shape(json.dumps({"text": "[{," * 1_000 + '"\\'}).encode(), 10)
    check_shape(b'{"text": ' + b"[" * (DEPTH - 1) + b"]" * (DEPTH - 1) + b"," + b"[]," * 5 + b"}", 10)
    check_shape(b'"' + b"\\" * 99_999, 10)
    check_shape(b"\\[" * 3, 10)
    for bad in (b"[" * (DEPTH + 1), b'"\\"[[[",' * 11, b'"a\\\\"' + b"[" * 17):
        with pytest.raises(HTTPException):
            check_shape(bad, 10)


def test_a_wrong_figure_file_is_no_error(tmp_path: Path) -> None:
    from raypath.components.serving.api.model_card import _metrics

    assert _metrics(tmp_path) == {}
    (tmp_path / "metrics.json").write_text("{")
    assert _metrics(tmp_path) == {}
