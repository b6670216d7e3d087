"""OpenAI's /v1/responses, by OpenAI's own clients and plain HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from tests.components.serving.language.chat_server import language_service, served_chat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
ASK: dict[str, Any] = {"model": "m", "input": "hi", "temperature": 0, "max_output_tokens": 12}
CHAT: dict[str, Any] = {"model": "m", "temperature": 0, "max_tokens": 12}


@pytest.fixture
def client(chat: SimpleNamespace) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{chat.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def _chat(client: openai.OpenAI, *messages: Any, **more: Any) -> Any:
    return client.chat.completions.create(**CHAT | more, messages=list(messages))


def test_a_response_is_that_of_chat_completions(client: openai.OpenAI) -> None:
    found = client.responses.create(**ASK, instructions="Be brief.", metadata={"a": "b"}, store=True, user="u")
    same = _chat(client, {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"})
    assert found.output_text == same.choices[0].message.content
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (same.usage.prompt_tokens, 12)
    assert (found.object, found.status, found.model) == ("response", "incomplete", "m")
    assert found.incomplete_details is not None
    assert (found.incomplete_details.reason, found.error) == ("max_output_tokens", None)
    assert (found.instructions, found.metadata, found.previous_response_id) == ("Be brief.", {"a": "b"}, None)
    assert found.model_dump()["store"] is False, "nothing is stored"
    [item] = found.output
    assert (item.type, item.status) == ("message", "incomplete")


def test_typed_events_make_the_response(client: openai.OpenAI) -> None:
    whole = client.responses.create(**ASK)
    events = list(client.responses.create(**ASK, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.incomplete",
    ]  # fmt: skip
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last: Any = events[-1]
    assert (last.response.output_text, last.response.usage) == (whole.output_text, whole.usage)
    stop = whole.output_text[6:9]
    with client.responses.stream(**ASK, extra_body={"stop": stop}) as stream:
        done = stream.get_final_response()
    assert (done.status, done.incomplete_details, done.completed_at is None) == ("completed", None, False)
    assert done.output_text == whole.output_text[: whole.output_text.index(stop)]


def test_the_form_of_a_stream(http: httpx.Client) -> None:
    reply = http.post("/v1/responses", json={**ASK, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    parts = [part.split("\n") for part in reply.text.strip().split("\n\n")]
    for name, data in parts:
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    assert "[DONE]" not in reply.text


def test_the_async_client(chat: SimpleNamespace, client: openai.OpenAI) -> None:
    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{chat.url}/v1", api_key="none") as asked:
            whole = await asked.responses.create(**ASK)
            stream = await asked.responses.create(**ASK, stream=True)
            texts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            return whole.output_text, "".join(texts)

    assert set(asyncio.run(ask())) == {client.responses.create(**ASK).output_text}


def test_items_of_a_conversation(client: openai.OpenAI) -> None:
    first = client.responses.create(**ASK)
    given: list[Any] = [{"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]}]
    given += [{"role": "user", "content": "hi"}, *(item.model_dump() for item in first.output)]
    given += [{"type": "reasoning", "id": "rs_1", "summary": []}, {"role": "user", "content": "and"}]
    found = client.responses.create(**ASK | {"input": given})
    messages = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"},
        {"role": "assistant", "content": first.output_text}, {"role": "user", "content": "and"},
    ]  # fmt: skip
    assert found.output_text == _chat(client, *messages).choices[0].message.content


def test_settings_and_logprobs(client: openai.OpenAI) -> None:
    greedy = client.responses.create(**ASK)
    hot = ASK | {"temperature": 2, "extra_body": {"seed": 1, "top_k": 1}}
    assert client.responses.create(**hot).output_text == greedy.output_text
    found: Any = client.responses.create(**ASK, include=["message.output_text.logprobs"], top_logprobs=2)
    tokens = found.output[0].content[0].logprobs
    assert len(tokens) == 12
    assert all(len(token.top_logprobs) == 2 for token in tokens)
    assert greedy.output[0].content[0].logprobs == []  # type: ignore[union-attr]
    events = client.responses.create(**ASK, include=["message.output_text.logprobs"], stream=True)
    shown = [token for event in events if event.type == "response.output_text.delta" for token in event.logprobs]
    assert [each.logprob for each in shown] == pytest.approx([each.logprob for each in tokens])


WRONG = [
    ({"input": []}, "input", None),
    ({"input": [{"type": "reasoning"}]}, "input", None),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input", None),
    ({"input": [{"type": "web_search_call"}]}, "input", None),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input", None),
    ({"input": [{"role": "poet", "content": "a"}]}, "input.items.0.message.role", None),
    ({"input": "a" * 400}, "input", "context_length_exceeded"),
    ({"max_output_tokens": 100_000}, "max_output_tokens", "context_length_exceeded"),
    ({"max_output_tokens": 0}, "max_output_tokens", None),
    ({"previous_response_id": "resp_1"}, "previous_response_id", None),
    ({"conversation": "conv_1"}, "conversation", None),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", None),
    ({"background": True}, "background", None),
    ({"tools": [{"type": "web_search"}]}, "tools", None),
    ({"tools": [{"type": "function"}]}, "tools", None),
    ({"tools": [{"type": "function", "name": "a"}]}, "tools", None),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format", None),
    ({"tool_choice": "required"}, "tool_choice", None),
    ({"temperature": 3}, "temperature", None),
]


@pytest.mark.parametrize(("change", "param", "code"), WRONG, ids=[json.dumps(change)[:50] for change, *_ in WRONG])
def test_what_a_request_cannot_have(change: dict[str, Any], param: str, code: str, http: httpx.Client) -> None:
    for stream in (False, True):
        found = http.post("/v1/responses", json={**ASK, "stream": stream, **change})
        error = found.json()["error"]
        assert found.status_code == 400, found.text
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
        assert "aaaa" not in found.text, "nothing of the request is repeated"


def test_an_engine_that_fails_ends_a_stream_with_an_event(chat_folder: Any) -> None:
    service = language_service({"m": chat_folder})
    engine, steps = service.models.main.engine.engine, list[int]()
    real = engine.step

    def step() -> Any:
        steps.append(1)
        if len(steps) == 4:
            raise RuntimeError("out of memory")
        return real()

    engine.step = step
    with served_chat(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.APIError, match="the engine of the model failed"):
            list(client.responses.create(**ASK, stream=True))
        with pytest.raises(openai.InternalServerError):
            client.responses.create(**ASK)
