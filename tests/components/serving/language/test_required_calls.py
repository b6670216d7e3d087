"""Responses that follow a grammar, of openvino-genai: calls of tools that are required, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"), pytest.mark.xdist_group("grammar")]
BIRDS = {"$defs": {"Bird": {"enum": ["gull", "owl"]}}, "type": "object", "properties": {
    "bird": {"$ref": "#/$defs/Bird"}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["bird", "count"], "additionalProperties": False}  # fmt: skip
LOOK: Any = {"type": "function", "function": {"name": "look", "parameters": BIRDS}}
GO: Any = {"type": "function", "function": {"name": "go"}}
NAMED: Any = {"type": "function", "function": {"name": "look"}}
ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 300}
RESPOND: Any = {"model": "m", "input": "hi", "temperature": 0, "max_output_tokens": 300}


@pytest.fixture
def client(grammar_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{grammar_url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("choice", "names"), [("required", {"look", "go"}), (NAMED, {"look"})], ids=["any", "named"])
def test_a_required_call(choice: Any, names: set[str], client: openai.OpenAI) -> None:
    for seed in range(3):
        more: Any = {"temperature": 1, "seed": seed, "tools": [GO, LOOK], "tool_choice": choice}
        [found] = client.chat.completions.create(**ASK | more).choices
        [call] = found.message.tool_calls or []
        assert (found.finish_reason, found.message.content, call.type) == ("tool_calls", None, "function")
        assert call.function.name in names
        jsonschema.validate(json.loads(call.function.arguments), BIRDS if call.function.name == "look" else {})
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**ASK | more, stream=True)]
        [streamed] = [each for chunk in chunks for each in chunk.delta.tool_calls or []]
        assert streamed.function is not None
        assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
        assert not any(chunk.delta.content for chunk in chunks)


def test_the_result_of_a_required_call(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(**ASK, tools=[LOOK], tool_choice="required").choices[0].message
    [call] = first.tool_calls or []
    more: Any = [first.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "two"}]
    found = client.chat.completions.create(
        **ASK | {"messages": [*ASK["messages"], *more], "max_tokens": 4}, tools=[LOOK]
    )
    assert found.choices[0].finish_reason in ("length", "stop")


def test_a_call_that_is_cut_off_is_text(client: openai.OpenAI) -> None:
    [found] = client.chat.completions.create(**ASK | {"max_tokens": 5}, tools=[LOOK], tool_choice="required").choices
    assert (found.finish_reason, found.message.tool_calls) == ("length", None)
    assert (found.message.content or "").startswith("{")


def test_required_calls_of_responses(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", **LOOK["function"]}
    more: Any = {"tools": [tool], "tool_choice": {"type": "function", "name": "look"}}
    found = client.responses.create(**RESPOND, **more)
    [item] = found.output
    assert item.type == "function_call"
    assert (found.status, item.status, item.name, found.output_text) == ("completed", "completed", "look", "")
    jsonschema.validate(json.loads(item.arguments), BIRDS)
    events: Any = list(client.responses.create(**RESPOND, **more, stream=True))
    assert [event.type.removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    assert events[-1].response.output[0].arguments == item.arguments
    result = {"type": "function_call_output", "call_id": item.call_id, "output": "two"}
    given: Any = [{"role": "user", "content": "hi"}, item.model_dump(), result]
    after = client.responses.create(**RESPOND | {"input": given, "max_output_tokens": 4}, tools=[tool])
    assert after.usage is not None
    assert found.usage is not None
    assert after.usage.input_tokens > found.usage.input_tokens


def test_formats_of_text(client: openai.OpenAI) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "birds", "schema": BIRDS, "strict": True}}
    content = client.chat.completions.create(**ASK, response_format=schema).choices[0].message.content or ""
    jsonschema.validate(json.loads(content), BIRDS)
    form: Any = {"format": {"type": "json_schema", "name": "birds", "schema": BIRDS, "strict": True}}
    jsonschema.validate(json.loads(client.responses.create(**RESPOND, text=form).output_text), BIRDS)
    plain: Any = {"type": "json_object"}
    warm: Any = {"temperature": 1, "seed": 5}
    content = client.chat.completions.create(**ASK | warm, response_format=plain).choices[0].message.content or ""
    assert content.startswith("{"), "random weights may write a long string"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/no"}}}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": 3}}}],
          "tool_choice": "required"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "function": {"name": "b"}}}, "tool_choice"),
        ({"logprobs": True, "top_logprobs": 3}, "top_logprobs"),
    ],
    ids=["schema", "reference", "parameters", "name", "top"],
)  # fmt: skip
def test_what_the_engine_does_not_follow(change: Any, param: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASK | {"max_tokens": 4}, **change)
    assert caught.value.param == param
    assert client.chat.completions.create(**ASK | {"max_tokens": 4}).choices, "others are served afterwards"


@pytest.mark.parametrize(
    "change", [{"temperature": 1e-300}, {"top_p": 1e-300, "temperature": 1}, {"min_p": 1, "temperature": 1}]
)
def test_the_bounds_of_sampling_are_greedy(change: dict[str, Any], client: openai.OpenAI) -> None:
    short = ASK | {"max_tokens": 6}
    greedy = client.chat.completions.create(**short).choices[0].message.content
    assert client.chat.completions.create(**short, extra_body=change).choices[0].message.content == greedy


def test_one_call_without_parallel_ones() -> None:
    from raypath.components.inference.generation.engine import Finish
    from raypath.components.inference.generation.streaming_engine import Piece
    from raypath.components.models.chat_template.calls import CallForm
    from raypath.components.serving.api.openai.chat.choices import Choice

    class Bytes:
        def decode(self, ids: Any, special: bool = False) -> str:
            return bytes(ids).decode()

        def is_special(self, text: str) -> bool:
            return False

    text = b'<c>{"name": "a", "arguments": {}}</c><c>{"name": "b", "arguments": {}}</c>'
    for single, names in ((True, ["a"]), (False, ["a", "b"])):
        choice = Choice(0, Bytes(), [], CallForm("<c>", "</c>"), single=single)  # type: ignore[arg-type]
        delta = choice.push(Piece("r", [*text], [0.0] * len(text), finish=Finish.STOP))
        assert [call.name for call in delta.calls] == names
