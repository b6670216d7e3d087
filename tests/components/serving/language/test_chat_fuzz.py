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
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, 1e308, 1e-300, 0.999, 1 << 70, "", "hi", "a" * 90, "\u0000", "👍",
    "<|im_end|>", [], [[]],
    {}, {"a": {}}, [1, 2], ["a"], [{"role": "user", "content": "x"}], {"type": "function"}, "none", "required",
    {"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}},
    {"format": {"type": "json_object"}}, {"format": {"type": "json_schema", "schema": {"$ref": "#/a"}}},
    {"type": "function", "function": {"name": "a"}}, {"type": "function", "name": "a"}, ["x", {"type": "message"}],
    [{"type": "function", "name": "a", "parameters": {"$ref": "#"}}],
    [{"type": "function", "function": {"name": "a", "parameters": {"$ref": "#/$defs/b"}}}],
    [{"type": "function", "function": {"name": "a", "parameters": {"enum": [1]}}}], ["message.output_text.logprobs"],
    [{"type": "function_call", "call_id": "c", "name": "a", "arguments": "{"}], [{"type": "reasoning"}],
    [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "two"}]}],
)  # fmt: skip
FIELDS = (
    *("model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "seed", "stop", "n", "stream", "stream_options"),
    *("logit_bias", "logprobs", "top_logprobs", "tools", "tool_choice", "response_format", "functions", "modalities"),
    *("echo", "suffix", "best_of", "user", "unknown", "parallel_tool_calls"),
    *("input", "instructions", "max_output_tokens", "text", "include", "previous_response_id", "conversation"),
    *("store", "background", "metadata", "truncation", "reasoning", "prompt"),
)


def _message(rng: random.Random) -> Any:
    made = {"role": rng.choice(["system", "user", "assistant", "tool", "developer"]), "content": "hi"}
    if rng.random() < 0.3:
        made[rng.choice(["role", "content", "name", "tool_calls", "tool_call_id", "extra"])] = rng.choice(ODD)
    return made


def _body(rng: random.Random) -> bytes:
    found: dict[str, Any] = {"model": "m", "max_tokens": 2, "max_output_tokens": 2}
    found |= {"input": rng.choice(["hi", [_message(rng) for _ in range(rng.randint(1, 4))]])}
    found |= {"messages": [_message(rng) for _ in range(rng.randint(1, 4))], "prompt": rng.choice(["hi", [5], ["a"]])}
    for _ in range(rng.randint(0, 4)):
        found[rng.choice(FIELDS)] = rng.choice(ODD)
    text = bytearray(json.dumps(found, ensure_ascii=rng.random() < 0.5).encode())
    if rng.random() < 0.1:
        text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text[: rng.randrange(len(text))] if rng.random() < 0.05 else text)


def _send(url: str, requests: int, seed: int) -> dict[int, int]:
    """The number of responses by status."""
    rng, counts = random.Random(seed), dict[int, int]()
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
        for number in range(requests):
            body, route = _body(rng), rng.choice(ROUTES)
            reply = client.post(route, content=body, headers={"content-type": "application/json"})
            counts[reply.status_code] = counts.get(reply.status_code, 0) + 1
            assert reply.status_code < 500, (number, route, body, reply.text)
            if reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream"):
                assert _is_complete(route, reply.text), (number, route, body, reply.text)
            elif reply.status_code != 200:
                assert reply.json()["error"]["message"], (number, route, body)
    return counts


def _is_complete(route: str, stream: str) -> bool:
    last = stream.removesuffix("\n\n").rpartition("\n\n")[2]
    if route == "/v1/responses":
        return last.startswith(("event: response.completed\n", "event: response.incomplete\n"))
    return last == "data: [DONE]"


def test_made_up_requests(chat: SimpleNamespace) -> None:
    counts = _send(chat.url, 200, 0)
    assert counts[200] > 10
    assert counts[400] > 30
    assert not chat.service.models.main.users


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_many_made_up_requests(chat: SimpleNamespace, grammar_url: str) -> None:
    """Half of the requests to each engine."""
    half = int(os.environ.get("RAYPATH_FUZZ", "10000")) // 2
    for url, seed in ((chat.url, 1), (grammar_url, 2)):
        counts = _send(url, half, seed)
        print(f"{half:,} requests with seed {seed}: {sorted(counts.items())}")
        assert set(counts) <= {200, 400, 403, 404, 422}
    assert not chat.service.models.main.users
