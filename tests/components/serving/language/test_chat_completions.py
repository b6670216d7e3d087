"""OpenAI's chat and text completions, by OpenAI's own clients and plain HTTP."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
ASK: dict[str, Any] = {"model": "m", "messages": MESSAGES, "temperature": 0, "max_tokens": 12}


@pytest.fixture
def client(chat: SimpleNamespace) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{chat.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_response_and_its_stream_are_the_same(client: openai.OpenAI, chat: SimpleNamespace) -> None:
    found = client.chat.completions.create(**ASK)
    [choice] = found.choices
    assert (found.model, found.object, choice.index, choice.finish_reason) == ("m", "chat.completion", 0, "length")
    assert (choice.message.role, found.system_fingerprint) == ("assistant", "version-1")
    assert found.usage is not None
    assert (found.usage.completion_tokens, found.usage.total_tokens) == (12, found.usage.prompt_tokens + 12)
    template = chat.service.models.main.template
    assert found.usage.prompt_tokens == len(template.encode_prompt(MESSAGES))
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == choice.message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == ["length"]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], found.usage)


def test_the_async_client(chat: SimpleNamespace, client: openai.OpenAI) -> None:
    async def ask() -> tuple[list[str], str]:
        async with openai.AsyncOpenAI(base_url=f"{chat.url}/v1", api_key="none") as asked:
            plain = await asyncio.gather(*(asked.chat.completions.create(**ASK) for _ in range(5)))
            stream = await asked.chat.completions.create(**ASK, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return [each.choices[0].message.content or "" for each in plain], text

    plain, streamed = asyncio.run(ask())
    assert {streamed, *plain} == {client.chat.completions.create(**ASK).choices[0].message.content}


def test_a_seed_and_its_choices(client: openai.OpenAI) -> None:
    warm = {**ASK, "temperature": 1.5, "n": 3}
    first, again, other = (client.chat.completions.create(**warm, seed=seed) for seed in (7, 7, -8))
    texts = [[choice.message.content for choice in each.choices] for each in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 3
    assert first.usage is not None
    assert first.usage.completion_tokens <= 36
    streamed: dict[int, str] = dict.fromkeys(range(3), "")
    for chunk in client.chat.completions.create(**warm, seed=7, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(streamed.values()) == texts[0]
    unseeded = {client.chat.completions.create(**{**warm, "n": 1}).choices[0].message.content for _ in range(4)}
    assert len(unseeded) > 1


def test_sampling_settings_reach_the_engine(client: openai.OpenAI) -> None:
    greedy = client.chat.completions.create(**ASK).choices[0].message.content
    hot = {**ASK, "temperature": 2, "seed": 1}
    for narrow in ({"top_p": 0.01}, {"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 1}}, {"top_p": 0}):
        assert client.chat.completions.create(**hot, **narrow).choices[0].message.content == greedy
    assert client.chat.completions.create(**hot).choices[0].message.content != greedy
    for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"extra_body": {"repetition_penalty": 5}}):
        longer = {**ASK, "max_tokens": 30}
        plain = client.chat.completions.create(**longer, logprobs=True).choices[0].logprobs
        other = client.chat.completions.create(**longer, **penalty, logprobs=True).choices[0].logprobs
        assert plain is not None
        assert other is not None
        names = [[each.bytes for each in logprobs.content or []] for logprobs in (plain, other)]
        assert len({str(n) for n in names[1]}) >= len({str(n) for n in names[0]})


def test_stop_strings(client: openai.OpenAI) -> None:
    longer = {**ASK, "max_tokens": 30}
    text = client.chat.completions.create(**longer).choices[0].message.content or ""
    stop = text[6:9]
    end = text.index(stop)
    [choice] = client.chat.completions.create(**longer, stop=[stop, "never there"]).choices
    assert (choice.message.content, choice.finish_reason) == (text[:end], "stop")
    chunks = list(client.chat.completions.create(**longer, stop=stop, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text[:end]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_logprobs(client: openai.OpenAI) -> None:
    [choice] = client.chat.completions.create(**ASK, logprobs=True, top_logprobs=3).choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert len(tokens) == 12
    for token in tokens:
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob, abs=1e-4), "greedy takes the first"
        assert len(token.top_logprobs) == 3
        assert token.logprob < 0
    joined = b"".join(bytes(token.bytes or []) for token in tokens)
    assert joined.decode(errors="replace") == choice.message.content, "bytes of a token that is no character"
    assert client.chat.completions.create(**ASK).choices[0].logprobs is None
    chunks = list(client.chat.completions.create(**ASK, logprobs=True, stream=True))
    counted = sum(len((c.choices[0].logprobs and c.choices[0].logprobs.content) or []) for c in chunks)
    assert counted == 12


def test_text_completions(client: openai.OpenAI, chat: SimpleNamespace) -> None:
    more: dict[str, Any] = {"model": "m", "temperature": 0, "max_tokens": 5}
    found = client.completions.create(prompt=["hit a", "saw an"], **more, logprobs=2)
    assert [choice.index for choice in found.choices] == [0, 1]
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (5 + 6, 10)
    assert found.choices[0].logprobs is not None
    assert len(found.choices[0].logprobs.token_logprobs or []) == 5
    ids = chat.service.models.main.template.encode_text("saw an")
    assert client.completions.create(prompt=ids, **more).choices[0].text == found.choices[1].text
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(prompt=[ids], **more, stream=True))
    assert streamed == found.choices[1].text


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["m", "n"]
    assert client.models.retrieve("n").id == "n"
    assert client.chat.completions.create(**{**ASK, "model": "n"}).model == "n"
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**{**ASK, "model": "other"})
    assert caught.value.code == "model_not_found"


def test_fields_of_new_clients_are_tolerated(http: httpx.Client) -> None:
    more = {
        "user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "reasoning_effort": "low",
        "parallel_tool_calls": True, "prediction": None, "tools": [], "logit_bias": {}, "n": None, "stop": None,
        "response_format": {"type": "text"}, "modalities": ["text"], "tool_choice": "auto", "seed": None,
    }  # fmt: skip
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts, "name": "anna"}]
    found = http.post("/v1/chat/completions", json={**ASK, **more, "messages": messages})
    assert found.status_code == 200, found.text
    same = http.post("/v1/chat/completions", json=ASK).json()
    assert found.json()["choices"] == same["choices"]


WRONG = [
    ({"messages": []}, "messages", None),
    ({"messages": [{"role": "poet", "content": "a"}]}, "messages.0.role", None),
    ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content.text", None),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", None),
    ({"messages": [{"role": "user", "content": "a" * 400}]}, "messages", "context_length_exceeded"),
    ({"messages": [{"role": "user", "content": "a" * 3_000}]}, None, None),
    ({"max_tokens": 100_000}, "max_tokens", "context_length_exceeded"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", None),
    ({"n": 10_000}, "n", None),
    ({"n": 0}, "n", None),
    ({"temperature": 2.5}, "temperature", None),
    ({"top_p": 1.5}, "top_p", None),
    ({"top_logprobs": 2}, "top_logprobs", None),
    ({"presence_penalty": 3}, "presence_penalty", None),
    ({"logit_bias": {"5": 1}}, "logit_bias", None),
    ({"stop": ["a"] * 20}, "stop.texts", None),
    ({"stream_options": {"include_usage": True}}, "stream_options", None),
    ({"response_format": {"type": "xml"}}, "response_format.type", None),
    ({"response_format": {"type": "json_schema"}}, "response_format", None),
    ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "tools", None),
    ({"tool_choice": "required"}, "tool_choice", None),
    ({"functions": [{"name": "a"}]}, "functions", None),
    ({"modalities": ["text", "audio"]}, "modalities", None),
    ({"seed": 1.5}, "seed", None),
    ({"model": None}, "model", None),
]


@pytest.mark.parametrize(("change", "param", "code"), WRONG, ids=[json.dumps(change)[:40] for change, *_ in WRONG])
def test_what_a_request_cannot_have(change: dict[str, Any], param: str | None, code: str, http: httpx.Client) -> None:
    found = http.post("/v1/chat/completions", json={**ASK, **change})
    error = found.json()["error"]
    assert found.status_code == 400, found.text
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert len(error["message"]) < 300
    assert "aaaa" not in found.text, "nothing of the request is repeated"


@pytest.mark.parametrize(
    "change", [{"prompt": [300]}, {"prompt": []}, {"prompt": [[]]}, {"suffix": "a"}, {"echo": True}, {"best_of": 3}]
)
def test_what_a_text_completion_cannot_have(change: dict[str, Any], http: httpx.Client) -> None:
    found = http.post("/v1/completions", json={"model": "m", "prompt": "a", **change})
    assert found.status_code == 400, found.text
    assert found.json()["error"]["type"] == "invalid_request_error"


def test_an_error_before_the_first_token_of_a_stream_is_a_response(http: httpx.Client) -> None:
    found = http.post("/v1/chat/completions", json={**ASK, "stream": True, "max_tokens": 100_000})
    assert (found.status_code, found.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b'{"model": "\xff"}', 400), (b'{"a":' * 70 + b"1" + b"}" * 70, 422), (b"", 400)],
    ids=["half", "list", "latin", "deep", "empty"],
)
def test_bodies_that_are_none(body: bytes, status: int, http: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    found = http.post("/v1/chat/completions", content=body, headers=headers)
    assert found.status_code == status
    assert found.json()["error"]["message"]


def test_numbers_are_those_of_the_engine(http: httpx.Client) -> None:
    found = http.post("/v1/chat/completions", json={**ASK, "logprobs": True}).json()
    logprobs = [each["logprob"] for each in found["choices"][0]["logprobs"]["content"]]
    assert all(math.isfinite(each) for each in logprobs)
