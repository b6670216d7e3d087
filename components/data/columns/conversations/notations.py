"""Messages of several notations in OpenAI's form: OpenAI's own, ShareGPT's `from` and `value`, and transcripts.

Functions raise ValueError with a description that follows the name of the column: "has a message without a role".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from raypath.components.core.conversations import Message, Tool, ToolCall

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}
"""Roles by the names that formats have for them."""
_TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of parts that are text, in OpenAI's APIs of chat completions and of responses."""
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
"""Beginning of a turn in a transcript, as the HH-RLHF data has them."""


def messages_of(value: Any, role: str = "") -> list[Message]:
    """Convert a list of messages, one message, their JSON, or a transcript; a plain text is one message of `role`.

    role: "" if plain text is invalid. With a role, JSON of anything but messages is text too, such as an answer that is
    a record, and so are numbers.
    """
    if role and isinstance(value, bool | int | float):
        return _plain(json.dumps(value), role)
    given, value = value, parsed(value)
    if isinstance(value, Mapping):
        value = [value]
    if role and isinstance(given, str) and not isinstance(value, str) and not all(map(_is_message, value)):
        value = given
    if isinstance(value, str):
        return _transcript(value) or _plain(value, role)
    if not isinstance(value, Sequence):
        raise ValueError(f"has a {type(value).__name__} in place of {'text' if role else 'messages'}")
    if role and not any(isinstance(each, Mapping) and _is_message(each) for each in value):
        raise ValueError("has an object or a list that is no message in place of text; write JSON as a string")
    return [_message(each) for each in value]


def prompt_of(value: Any) -> list[Message]:
    """Convert a prompt: text or messages. The empty answer that a transcript ends with ("Assistant:") is dropped."""
    found = messages_of(value, "user")
    last = found[-1] if found else None
    asked = last is not None and last["role"] == "assistant" and not last["content"] and "tool_calls" not in last
    return found[:-1] if asked else found


def exchange(prompt: Any, completion: Any) -> list[Message]:
    """Join a prompt and its completion, each text or messages; None is an empty text."""
    ends = messages_of(completion, "assistant") if completion is not None else []
    return [*prompt_of("" if prompt is None else prompt), *(ends or [{"role": "assistant", "content": ""}])]


def _is_message(value: Any) -> bool:
    """Return True for an object with the keys of a message, whatever its role is."""
    return isinstance(value, Mapping) and ("role" in value or {"from", "value"} <= value.keys())


def parsed(value: Any) -> Any:
    """Parse JSON of an object or a list of objects; other values are returned as they are."""
    if isinstance(value, str) and re.match(r"\s*(\{\s*\"|\[\s*\{)", value):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _plain(text: str, role: str) -> list[Message]:
    if not role:
        raise ValueError("has text that is not a list of messages")
    return [{"role": role, "content": text}]


def _transcript(text: str) -> list[Message]:
    """Divide a text with turns that begin with "Human:" and "Assistant:"; [] for any other."""
    if not _TURN.match(text):
        return []
    parts = _TURN.split(text)[1:]
    roles = ["user" if name == "Human" else "assistant" for name in parts[::2]]
    return [{"role": role, "content": turn.strip()} for role, turn in zip(roles, parts[1::2], strict=True)]


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping):
        raise ValueError("has a message that is not an object")
    given = value.get("role", value.get("from"))
    role = _ROLES.get(given.strip().lower()) if isinstance(given, str) else None
    if role is None:
        named = (
            f"the unknown role {given}" if isinstance(given, str) and re.fullmatch(r"\w{1,32}", given) else "no role"
        )
        raise ValueError(f"has a message with {named}; wanted system, user, assistant or tool")
    content = value.get("content", value.get("value"))
    if given == "function_call":
        call = parsed(content)
        calls = call if isinstance(call, list) else [call]
        return {"role": role, "content": "", "tool_calls": [_tool_call(each) for each in calls]}
    made: Message = {"role": role, "content": _content(content)}
    if isinstance(value.get("name"), str) and value["name"]:
        made["name"] = value["name"]
    if calls := _tool_calls(value):
        made["tool_calls"] = calls
    if role == "tool" and value.get("tool_call_id"):
        made["tool_call_id"] = str(value["tool_call_id"])
    reasoning = value.get("reasoning_content") or value.get("thinking")
    if isinstance(reasoning, str) and role == "assistant":
        made["reasoning_content"] = reasoning
    if value.get("weight") is not None and role == "assistant":
        if value["weight"] not in (0, 1):
            raise ValueError("has a message with another weight than 0 and 1")
        made["weight"] = int(value["weight"])
    return made


def _content(value: Any) -> str:
    """Return the text of a message, whose parts are joined."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        raise ValueError(f"has a message whose content is a {type(value).__name__}; wanted text")
    return "".join(_part(part) for part in value)


def _part(part: Any) -> str:
    text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") in _TEXT_PARTS else part
    if not isinstance(text, str):
        raise ValueError("has a message with a part that is not text, such as an image")
    return text


def _tool_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    given = parsed(message.get("tool_calls")) or []
    if message.get("function_call"):
        given = [message["function_call"]]
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError("has tool_calls that are not a list")
    return [_tool_call(call) for call in given]


def _tool_call(value: Any) -> ToolCall:
    value = parsed(value)
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("has a tool call without the name of a function")
    arguments = function.get("arguments", function.get("parameters"))
    text = arguments if isinstance(arguments, str) else _json(arguments or {})
    try:
        valid = isinstance(json.loads(text or "{}"), dict)
    except (ValueError, RecursionError):
        valid = False
    if not valid:
        raise ValueError("has a tool call whose arguments are not a JSON object")
    made: ToolCall = {"type": "function", "function": {"name": function["name"], "arguments": text or "{}"}}
    return {"id": str(value["id"]), **made} if value.get("id") else made


def tools_of(value: Any) -> tuple[Tool, ...]:
    """Convert descriptions of tools: a list, or its JSON; null and "" give none."""
    value = parsed(value)
    if value is None or value == "" or value == "[]":
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError("has tools that are not a list")
    return tuple(_tool(each) for each in value)


def _tool(value: Any) -> Tool:
    value = _without_nulls(parsed(value))
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("has a tool without the name of a function")
    return value if "function" in value else {"type": "function", "function": value}


def _without_nulls(value: Any) -> Any:
    """Drop null fields: Arrow adds those of all objects of a column to each."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
