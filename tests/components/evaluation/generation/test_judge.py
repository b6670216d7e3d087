"""A judge behind an OpenAI-compatible endpoint: both orders, costs, retries, and what happens when it is away."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import pytest

from raypath.components.core.errors import ParamsError, Unavailable
from raypath.components.evaluation.generation import judge as module
from raypath.components.evaluation.generation.judge import Judge, Pair
from tests.local_http import answering

Answer = Callable[[dict[str, Any]], tuple[int, Any]]
PAIRS = [
    Pair("Hi?", "good", first, second) for first, second in (("good", "bad"), ("bad", "good"), ("x", "y"), ("z", "z"))
]


def serve(answer: Answer, models: Any = ({"id": "judge-1"},), key: str = "") -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200 if self._known() else 401, {"data": list(models)})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            self._send(*(answer(body) if self._known() else (401, {})))

        def _known(self) -> bool:
            return not key or self.headers.get("Authorization") == f"Bearer {key}"

        def _send(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    return Handler


def said_by(winner: str) -> tuple[int, Any]:
    return _said(json.dumps({"reason": "it is", "winner": winner}))


def _said(text: str, tokens: int = 10) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": tokens}}


def _honest(body: dict[str, Any]) -> tuple[int, Any]:
    """Prefer the answer "good"; of others the first."""
    assert body["model"] == "judge-1"
    said = body["messages"][1]["content"]
    winner = "B" if "<answer_b>\ngood\n" in said else "A"
    return said_by(winner)


def _judged(answer: Answer, **more: Any) -> module.Judgement:
    with answering(serve(answer, **more)) as url:
        judge = Judge(f"{url}/v1", pause=0.001)
        judge.check()
        return judge.compare(PAIRS)


def test_pairs_are_judged_in_both_orders() -> None:
    found = _judged(_honest)
    np.testing.assert_array_equal(found.scores, [1.0, 0.0, 0.5, 0.5])
    assert found.agreement == pytest.approx(2 / 3), "the third depends on the place, and the fourth is not sent"
    assert found.requests == 6, "equal answers are not sent"
    assert found.tokens == 60
    assert found.failure == ""


def test_passing_failures_are_retried() -> None:
    seen: set[str] = set()

    def flaky(body: dict[str, Any]) -> tuple[int, Any]:
        said = body["messages"][1]["content"]
        known = said in seen
        seen.add(said)
        return _honest(body) if known else (503, {})

    found = _judged(flaky)
    np.testing.assert_array_equal(found.scores, [1.0, 0.0, 0.5, 0.5])
    assert found.requests == 6 + 4, "each of four different ones fails once"


def test_a_model_that_takes_no_temperature() -> None:
    def strict(body: dict[str, Any]) -> tuple[int, Any]:
        return (400, {"error": "temperature is not supported"}) if "temperature" in body else _honest(body)

    np.testing.assert_array_equal(_judged(strict).scores, [1.0, 0.0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: (200, {"choices": []}), "another form than OpenAI's"),
        (lambda _: (200, ["x"]), "another form than OpenAI's"),
        (lambda _: _said("I like both"), "names no winner"),
        (lambda _: (404, {}), "status 404"),
        (lambda _: (500, {}), "status 500"),
    ],
)
def test_pairs_without_a_verdict_have_no_score(answer: Answer, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GIVE_UP", 100)
    found = _judged(answer)
    np.testing.assert_array_equal(found.scores, [np.nan, np.nan, np.nan, 0.5])
    assert said in found.failure


def test_a_judge_that_has_gone_is_not_asked_for_every_row() -> None:
    with answering(serve(_honest)) as url:
        judge = Judge(f"{url}/v1", pause=0.001)
        judge.check()
    many = judge.compare([Pair("?", "r", f"{n}", "x") for n in range(50)])
    assert np.isnan(many.scores).all()
    assert many.requests == 0
    assert np.isnan(many.agreement)
    assert "in a row failed" in many.failure


def test_a_judge_that_is_away_is_one_line() -> None:
    with answering(serve(_honest)) as url:
        pass
    with pytest.raises(Unavailable, match=r"the judge at http:.* does not respond"):
        Judge(f"{url}/v1").check()


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParamsError, match="rejects the API key"):
        _judged(_honest, key="secret-1")
    monkeypatch.setenv(module.KEY, "secret-1")
    assert _judged(_honest, key="secret-1").requests == 6
    with pytest.raises(ParamsError, match="unencrypted") as caught:
        Judge("http://example.org/v1")
    assert "secret-1" not in str(caught.value)


def test_settings_of_a_judge() -> None:
    with pytest.raises(ParamsError, match="give a URL"):
        Judge("gpt-4")
    with pytest.raises(ParamsError, match="lists no models"):
        _judged(_honest, models=())
    with answering(serve(_honest, models=())) as url:
        named = Judge(f"{url}/v1/chat/completions", "judge-1", pause=0.001)
        named.check()
        assert named.compare(PAIRS[:1]).scores.tolist() == [1.0]
