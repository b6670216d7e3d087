"""Requests of /v1/responses as chat requests: items become messages. What is not supported is rejected with 400."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raypath.components.serving.api.errors import BadRequest
from raypath.components.serving.api.openai.chat.requests import ChatRequest
from raypath.components.serving.api.openai.responses.requests import (
    InputCall,
    InputMessage,
    InputResult,
    Item,
    NamedChoice,
    ResponsesRequest,
    ResponseTool,
    TextFormat,
)

NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
}
"""Names of the fields of a chat request in a request for a response."""
LOGPROBS = "message.output_text.logprobs"
_SAME = (
    *("model", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "seed", "stop", "stream", "parallel_tool_calls"),
)
_TEXTS = ("text", "input_text", "output_text")
"""Types of content that are text."""
_UNSUPPORTED = {
    "previous_response_id": "responses are not stored; wanted the whole conversation as input",
    "conversation": "conversations are not stored; wanted the whole conversation as input",
    "prompt": "there are no stored prompts; wanted instructions and input",
    "background": "responses are not stored, and cannot be fetched later; wanted false",
}


def chat_request(given: ResponsesRequest) -> ChatRequest:
    """Return a request as a chat request. Raises BadRequest."""
    for name, why in _UNSUPPORTED.items():
        if getattr(given, name):
            raise BadRequest(why, name)
    made: dict[str, Any] = {name: getattr(given, name) for name in _SAME}
    made |= {"messages": _messages(given), "max_completion_tokens": given.max_output_tokens}
    made["tools"] = [_tool(each) for each in given.tools] if given.tools else None
    choice: Any = given.tool_choice
    named = isinstance(choice, NamedChoice)
    made["tool_choice"] = {"type": "function", "function": {"name": choice.name}} if named else choice
    made["response_format"] = _format(given.text.format if given.text is not None else None)
    made["logprobs"] = wants_logprobs(given)
    made["top_logprobs"] = given.top_logprobs if wants_logprobs(given) else None
    return ChatRequest.model_validate(made)


def wants_logprobs(given: ResponsesRequest) -> bool:
    """Return True for a request that includes log-probabilities."""
    return LOGPROBS in (given.include or ()) or bool(given.top_logprobs)


def _messages(given: ResponsesRequest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if given.instructions:
        found.append({"role": "system", "content": given.instructions})
    if isinstance(given.input, str):
        return [*found, {"role": "user", "content": given.input}]
    if not given.input:
        raise BadRequest("the input has no items", "input")
    return found + _items(given.input)


def _items(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Return messages; calls that follow each other, or a text of the assistant, are of one message."""
    found: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, InputMessage):
            found.append({"role": item.role, "content": _text(item.content)})
        elif isinstance(item, InputCall):
            if not found or found[-1]["role"] != "assistant":
                found.append({"role": "assistant", "content": None})
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            found[-1].setdefault("tool_calls", []).append(call)
        elif isinstance(item, InputResult):
            found.append({"role": "tool", "content": _text(item.output), "tool_call_id": item.call_id})
        elif item.type == "item_reference":
            raise BadRequest("items are not stored; wanted the items themselves", "input")
        elif item.type != "reasoning":
            raise BadRequest("wanted items of type message, function_call or function_call_output", "input")
    if not found:
        raise BadRequest("the input has no message", "input")
    return found


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if any(part.type not in _TEXTS for part in content):
        raise BadRequest("this model reads text only", "input")
    return "".join(part.text or "" for part in content)


def _tool(given: ResponseTool) -> dict[str, Any]:
    if given.type != "function":
        raise BadRequest("this model has no tools of its own; wanted tools of type function", "tools")
    if given.name is None:
        raise BadRequest("a tool of type function has no name", "tools")
    function = given.model_dump(include={"name", "description", "parameters"}, exclude_none=True)
    return {"type": "function", "function": function}


def _format(given: TextFormat | None) -> dict[str, Any] | None:
    if given is None:
        return None
    schema = {"name": given.name or "response", "schema": given.schema_} if given.type == "json_schema" else None
    return {"type": given.type, "json_schema": schema}
