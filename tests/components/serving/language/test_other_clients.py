"""Clients besides OpenAI's: LangChain, LiteLLM and LlamaIndex (dependency group `clients`), and curl."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.components.serving.language.client_programs import LITELLM, LLAMA_INDEX

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("grammar")]
REASON = "the dependency group clients is not installed"
BIRD = {
    "title": "Bird", "description": "A bird that was seen.", "type": "object", "required": ["name"],
    "properties": {"name": {"enum": ["gull", "owl"]}}, "additionalProperties": False,
}  # fmt: skip
TOOL: Any = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": BIRD}}


@pytest.fixture(scope="module")
def talk(grammar_url: str) -> Iterator[SimpleNamespace]:
    """The service, and its greedy response to `hi`."""
    import openai

    url = grammar_url
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        messages: Any = [{"role": "user", "content": "hi"}]
        found = client.chat.completions.create(model="m", messages=messages, temperature=0, max_tokens=8)
        yield SimpleNamespace(url=url, base=f"{url}/v1", text=found.choices[0].message.content)


def test_langchain(talk: SimpleNamespace) -> None:
    chat = pytest.importorskip("langchain_openai", reason=REASON).ChatOpenAI
    made: dict[str, Any] = {"base_url": talk.base, "api_key": "none", "model": "m", "temperature": 0}
    model = chat(**made, max_tokens=8)
    found = model.invoke("hi")
    assert (found.content, found.usage_metadata["output_tokens"]) == (talk.text, 8)
    assert "".join(chunk.content for chunk in model.stream("hi")) == talk.text
    assert asyncio.run(model.ainvoke("hi")).content == talk.text
    assert [each.content for each in model.batch(["hi", "hi"])] == [talk.text] * 2
    longer = chat(**made, max_tokens=300)
    called = longer.bind_tools([TOOL], tool_choice="required").invoke("hi")
    [call] = called.tool_calls
    assert (call["name"], call["args"]["name"] in ("gull", "owl")) == ("look", True)
    from langchain_core.messages import HumanMessage, ToolMessage

    after = model.bind_tools([TOOL]).invoke([HumanMessage("hi"), called, ToolMessage("two", tool_call_id=call["id"])])
    assert after.usage_metadata is not None
    for method in ("json_schema", "function_calling"):
        bird = longer.with_structured_output(BIRD, method=method).invoke("hi")
        assert bird["name"] in ("gull", "owl"), method


def test_langchain_by_responses(talk: SimpleNamespace) -> None:
    chat = pytest.importorskip("langchain_openai", reason=REASON).ChatOpenAI
    made: dict[str, Any] = {"base_url": talk.base, "api_key": "none", "model": "m", "temperature": 0}
    model = chat(**made, max_tokens=8, use_responses_api=True)
    assert model.invoke("hi").text == talk.text
    assert "".join(chunk.text for chunk in model.stream("hi")) == talk.text
    longer = chat(**made, max_tokens=300, use_responses_api=True)
    called = longer.bind_tools([TOOL], tool_choice="look").invoke("hi")
    [call] = called.tool_calls
    assert call["name"] == "look"
    from langchain_core.messages import HumanMessage, ToolMessage

    assert model.invoke([HumanMessage("hi"), called, ToolMessage("two", tool_call_id=call["id"])]).text is not None
    assert longer.with_structured_output(BIRD).invoke("hi")["name"] in ("gull", "owl")


@pytest.mark.parametrize(
    ("package", "program"), [("litellm", LITELLM), ("llama_index", LLAMA_INDEX)], ids=["litellm", "llama"]
)
def test_programs(package: str, program: str, talk: SimpleNamespace, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(REASON)
    given = [sys.executable, "-c", program, talk.base, talk.text]
    done = subprocess.run(given, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2_000:]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(talk: SimpleNamespace) -> None:
    def curl(path: str, body: Any, *more: str) -> str:
        given = ["curl", "-sS", "--noproxy", "*", f"{talk.base}{path}", "-H", "content-type: application/json", *more]
        return subprocess.run(
            [*given, "-d", json.dumps(body)], check=True, capture_output=True, timeout=30
        ).stdout.decode()

    ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 8}
    assert json.loads(curl("/chat/completions", ask))["choices"][0]["message"]["content"] == talk.text
    lines = curl("/chat/completions", {**ask, "stream": True}, "-N").strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)
    respond = {"model": "m", "input": "hi", "temperature": 0, "max_output_tokens": 8}
    assert json.loads(curl("/responses", respond))["output"][0]["content"][0]["text"] == talk.text
    assert curl("/responses", {**respond, "stream": True}, "-N").startswith("event: response.created\ndata: {")
    assert json.loads(curl("/responses", {"model": "m"}))["error"]["param"] == "input"
