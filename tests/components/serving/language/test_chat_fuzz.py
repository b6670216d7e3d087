"""Made-up requests to the routes of a language model: each gets a response, none an error of the server."""

from __future__ import annotations

import json
import os
import random
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
ROUTES = ("/v1/chat/completions", "/v1/completions")
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, 1e308, 1 << 70, "", "hi", "a" * 90, "\u0000", "👍", "<|im_end|>", [], [[]],
    {}, {"a": {}}, [1, 2], ["a"], [{"role": "user", "content": "x"}], {"type": "function"}, "none", "required",
    {"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}},
)  # fmt: skip
FIELDS = (
    *("model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "seed", "stop", "n", "stream", "stream_options"),
    *("logit_bias", "logprobs", "top_logprobs", "tools", "tool_choice", "response_format", "functions", "modalities"),
    *("echo", "suffix", "best_of", "user", "unknown"),
)


def _message(rng: random.Random) -> Any:
    made = {"role": rng.choice(["system", "user", "assistant", "tool", "developer"]), "content": "hi"}
    if rng.random() < 0.3:
        made[rng.choice(["role", "content", "name", "tool_calls", "tool_call_id", "extra"])] = rng.choice(ODD)
    return made


def _body(rng: random.Random) -> bytes:
    found: dict[str, Any] = {"model": "m", "max_tokens": 2}
    found |= {"messages": [_message(rng) for _ in range(rng.randint(1, 4))], "prompt": rng.choice(["hi", [5], ["a"]])}
    for _ in range(rng.randint(0, 4)):
        found[rng.choice(FIELDS)] = rng.choice(ODD)
    text = bytearray(json.dumps(found, ensure_ascii=rng.random() < 0.5).encode())
    if rng.random() < 0.1:
        text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text[: rng.randrange(len(text))] if rng.random() < 0.05 else text)


def _send(chat: SimpleNamespace, requests: int, seed: int) -> dict[int, int]:
    """The number of responses by status."""
    rng, counts = random.Random(seed), dict[int, int]()
    with httpx.Client(base_url=chat.url, timeout=30.0, trust_env=False) as client:
        for number in range(requests):
            body = _body(rng)
            reply = client.post(rng.choice(ROUTES), content=body, headers={"content-type": "application/json"})
            counts[reply.status_code] = counts.get(reply.status_code, 0) + 1
            assert reply.status_code < 500, (number, body, reply.text)
            if reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream"):
                assert reply.text.endswith("data: [DONE]\n\n"), (number, body, reply.text)
            elif reply.status_code != 200:
                assert reply.json()["error"]["message"], (number, body)
    return counts


def test_made_up_requests(chat: SimpleNamespace) -> None:
    counts = _send(chat, 150, 0)
    assert counts[200] > 10
    assert counts[400] > 30
    assert not chat.service.models.main.users


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_many_made_up_requests(chat: SimpleNamespace) -> None:
    counts = _send(chat, int(os.environ.get("RAYPATH_FUZZ", "10000")), 1)
    assert set(counts) <= {200, 400, 403, 404, 422}
    assert not chat.service.models.main.users
