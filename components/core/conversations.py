"""Conversations and preferences in OpenAI's form: the Python side of the column kinds `messages` and `preference`.

A column stores one as compact JSON: `{"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}`, and a
preference as `{"messages": [...], "chosen": [...], "rejected": [...], "tools": [...]}`, where `messages` is the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Required, Self, TypedDict

ROLES = ("system", "user", "assistant", "tool")
"""Roles of messages; `tool` has the result of a call."""


class Function(TypedDict):
    """Called function. arguments: a JSON object as text."""

    name: str
    arguments: str


class ToolCall(TypedDict, total=False):
    """Call of a tool by the assistant."""

    id: str
    type: Required[str]
    function: Required[Function]


class Message(TypedDict, total=False):
    """One message. content: text, "" where there are only tool calls.

    reasoning_content: the reasoning before the answer, for templates that have a place for it. weight: 0 for an
    assistant message that is excluded from the loss.
    """

    role: Required[str]
    content: Required[str]
    name: str
    tool_calls: list[ToolCall]
    tool_call_id: str
    reasoning_content: str
    weight: int


Tool = dict[str, Any]
"""Description of a function, as OpenAI's API takes it: {"type": "function", "function": {"name": ..., ...}}."""


@dataclass(frozen=True)
class Conversation:
    """Messages, and the tools that the assistant may call."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()

    @classmethod
    def loads(cls, text: str) -> Self:
        """Read the JSON of a stored value."""
        return cls.of(json.loads(text))

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """Create one of a stored value whose JSON is parsed."""
        return cls(tuple(found["messages"]), tuple(found.get("tools", ())))

    def dumps(self) -> str:
        """Return the JSON that a column stores."""
        return _compact({"messages": self.messages, "tools": self.tools})

    @property
    def prompt(self) -> Conversation:
        """Everything before the last message, which is the assistant's."""
        return Conversation(self.messages[:-1], self.tools)

    @property
    def answer(self) -> Message:
        """Last message."""
        return self.messages[-1]


@dataclass(frozen=True)
class Preference:
    """Prompt with a chosen and a rejected continuation, each of one or more messages."""

    messages: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()

    @classmethod
    def loads(cls, text: str) -> Self:
        """Read the JSON of a stored value."""
        return cls.of(json.loads(text))

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """Create one of a stored value whose JSON is parsed."""
        parts = [tuple(found.get(name, ())) for name in ("messages", "chosen", "rejected", "tools")]
        return cls(*parts)

    def dumps(self) -> str:
        """Return the JSON that a column stores."""
        named = {"messages": self.messages, "chosen": self.chosen, "rejected": self.rejected, "tools": self.tools}
        return _compact(named)

    @property
    def with_chosen(self) -> Conversation:
        """Prompt and chosen continuation."""
        return Conversation(self.messages + self.chosen, self.tools)

    @property
    def with_rejected(self) -> Conversation:
        """Prompt and rejected continuation."""
        return Conversation(self.messages + self.rejected, self.tools)


def _compact(value: dict[str, Any]) -> str:
    if not value["tools"]:
        del value["tools"]
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def is_text(messages: Sequence[Message]) -> bool:
    """Return True for a text without a prompt: a single assistant message, which no template renders."""
    return len(messages) == 1 and messages[0]["role"] == "assistant" and not messages[0].get("tool_calls")


def problem_of(messages: Sequence[Message]) -> str:
    """Describe why messages cannot be trained on, to follow "the conversation"; "" if they can.

    A system message is the first, and only a lone assistant message, which is a text, has neither system nor user
    message before it. Messages of the assistant follow those of the user or of a tool, a tool's result follows its
    call, and the last message is the assistant's. None is empty but a tool's result.
    """
    if not any(message["role"] == "assistant" for message in messages):
        return "has no assistant message"
    if messages[-1]["role"] != "assistant":
        return f"ends with a {messages[-1]['role']} message; wanted an answer of the assistant"
    if messages[0]["role"] == "assistant" and not is_text(messages):
        return "begins with an assistant message"
    calls = _Calls()
    for number, message in enumerate(messages):
        before = messages[number - 1]["role"] if number else ""
        problem = _misplaced(message["role"], before) or _empty(message) or calls.problem(message)
        if problem:
            return problem
    if all(message.get("weight") == 0 for message in messages if message["role"] == "assistant"):
        return "has no assistant message with a weight other than 0"
    return ""


def _misplaced(role: str, before: str) -> str:
    """Describe a message that cannot follow one of the role `before`, "" for the first message."""
    if role == "system" and before:
        return "has a system message that is not the first"
    if role == before and role != "tool":
        return f"has two {role} messages in a row"
    if role == "user" and before == "tool":
        return "has a user message after a tool's result; wanted one of the assistant"
    return ""


def _empty(message: Message) -> str:
    blank = not message["content"].strip() and not message.get("tool_calls")
    role = message["role"]
    article = "an" if role == "assistant" else "a"
    return f"has {article} {role} message without content" if blank and role != "tool" else ""


class _Calls:
    """Calls of tools that wait for their results."""

    def __init__(self) -> None:
        self._open: list[str] = []

    def problem(self, message: Message) -> str:
        """Take the next message; describe a tool's result without its call."""
        if message["role"] == "assistant":
            self._open = [call.get("id", "") for call in message.get("tool_calls", [])]
        elif message["role"] == "tool":
            wanted = message.get("tool_call_id", "")
            # Older formats have no ids: results then follow the order of the calls.
            known = wanted if wanted in self._open else "" if "" in self._open or not wanted else None
            if not self._open or known is None:
                return "has a tool's result without a call of the assistant"
            self._open.remove(known if known in self._open else self._open[0])
        return ""
