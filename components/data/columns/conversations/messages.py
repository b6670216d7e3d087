"""Messages: a conversation, stored as compact JSON in OpenAI's form (`raypath.components.core.conversations`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.conversations import Conversation, Message, Preference, problem_of
from raypath.components.data.columns.conversations.notations import exchange, messages_of, parsed, tools_of
from raypath.components.data.columns.kind import ColumnKind
from raypath.components.data.columns.values import is_valid_unicode

_MARKS = re.compile("[\ufdd0-\ufdd4]")


class Messages(ColumnKind):
    """A conversation that ends with an answer of the assistant."""

    name = "messages"
    type = pa.string()
    wanted = "a list of messages with role and content"
    request: ClassVar[Any] = list[dict[str, Any]]
    example: ClassVar[Any] = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes, please."}]

    def parse(self, value: Any) -> str | None:
        """Accept messages, an object with `messages` and `tools`, and the JSON of either."""
        try:
            return to_json(conversation_of(value))
        except ValueError:
            return None

    def problem(self, value: Any) -> str:
        """Describe what is wrong with the messages."""
        try:
            to_json(conversation_of(value))
        except ValueError as error:
            return str(error)
        return super().problem(value)

    def render(self, value: Any) -> str:
        """Return the messages as lines with their roles."""
        return transcript(Conversation.loads(value).messages)

    def describe(self, column: pa.Array) -> dict[str, float]:
        """Add the mean number of messages and the maximum length in characters."""
        found = [Conversation.loads(value) for value in column.to_pylist() if value is not None]
        turns = sum(len(each.messages) for each in found) / max(len(found), 1)
        longest = pc.max(pc.utf8_length(column)).as_py() or 0
        return {**super().describe(column), "mean_messages": turns, "max_characters": float(longest)}


def conversation_of(value: Any) -> Conversation:
    """Convert and check a conversation of any notation. Raises ValueError with what is wrong."""
    value = parsed(value)
    tools: Any = None
    system = ""
    if isinstance(value, Mapping):
        tools, system = value.get("tools"), value.get("system") or ""
        if {"prompt", "completion"} & value.keys():
            value = exchange(value.get("prompt"), value.get("completion"))
        else:
            value = value.get("messages", value.get("conversations"))
    found = with_system(messages_of(value), system)
    if problem := problem_of(found):
        raise ValueError(problem)
    return Conversation(tuple(found), tools_of(tools))


def with_system(messages: Sequence[Message], system: Any) -> list[Message]:
    """Put a system prompt first, and drop an empty one: formats write it where there is none."""
    found = list(messages)
    if isinstance(system, str) and system.strip() and not any(each["role"] == "system" for each in found):
        return [{"role": "system", "content": system}, *found]
    if found and found[0]["role"] == "system" and not found[0]["content"].strip():
        return found[1:]
    return found


def to_json(value: Conversation | Preference) -> str:
    """Return the JSON that a column stores. Raises ValueError for text that is no valid Unicode, or has characters with
    which chat templates are marked (models/chat_template): they would be lost."""
    found = value.dumps()
    if not is_valid_unicode(found):
        raise ValueError("has a lone surrogate (\\ud800-\\udfff)")
    if _MARKS.search(found):
        raise ValueError("has a code point that Unicode reserves for programs (U+FDD0 to U+FDD4)")
    return found


def transcript(messages: Sequence[Message]) -> str:
    """Format messages for people and for comparisons: a paragraph each, which begins with the role."""
    return "\n".join(f"{message['role']}: {message['content']}{_calls(message)}" for message in messages)


def _calls(message: Message) -> str:
    calls = [call["function"] for call in message.get("tool_calls", [])]
    return "".join(f" {call['name']}({call['arguments']})" for call in calls)
