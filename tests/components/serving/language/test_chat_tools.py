"""Tools in requests: rendered by templates that have a place for them, and calls in earlier messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.components.models.chat_template.styles import QWEN
from tests.components.serving.language.chat_server import chat_model, language_service, served_chat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
TOOLS: Any = [{"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {}}}]
ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 4}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = chat_model(tmp_path_factory.mktemp("tools"), max_position_embeddings=1024)
    (folder / "chat_template.jinja").write_text(QWEN)
    with (
        served_chat(language_service({"m": folder})) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def _prompt(client: openai.OpenAI, **more: Any) -> int:
    used = client.chat.completions.create(**ASK | more).usage
    assert used is not None
    return used.prompt_tokens


def test_tools_are_in_the_prompt(client: openai.OpenAI) -> None:
    plain, offered = _prompt(client), _prompt(client, tools=TOOLS)
    assert offered > plain + 50
    assert _prompt(client, tools=TOOLS, tool_choice="auto", parallel_tool_calls=False) == offered
    assert _prompt(client, tools=TOOLS, tool_choice="none") == plain
    chunks = list(client.chat.completions.create(**ASK, tools=TOOLS, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"


def test_calls_of_earlier_messages_are_in_the_prompt(client: openai.OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "a gull"}'}}
    more = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    more += [{"role": "tool", "tool_call_id": "call_1", "content": "two"}]
    assert _prompt(client, tools=TOOLS, messages=[*ASK["messages"], *more]) > _prompt(client, tools=TOOLS) + 30


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
def test_a_required_call_on_transformers(choice: Any, client: openai.OpenAI) -> None:
    bird = {"type": "object", "properties": {"bird": {"enum": ["gull", "owl"]}}, "required": ["bird"]}
    tools: Any = [
        {"type": "function", "function": {"name": "look", "parameters": bird | {"additionalProperties": False}}}
    ]
    [found] = client.chat.completions.create(**ASK | {"max_tokens": 300}, tools=tools, tool_choice=choice).choices
    [call] = found.message.tool_calls or []
    assert (found.finish_reason, found.message.content, call.function.name) == ("tool_calls", None, "look")
    assert json.loads(call.function.arguments)["bird"] in ("gull", "owl")
