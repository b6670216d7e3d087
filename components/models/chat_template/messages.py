"""Messages as a template expects them: most take text and arguments of calls as objects, some parts and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from raypath.components.core.conversations import Message, ToolCall


class MessageForm(NamedTuple):
    """Form of messages. parts: content as a list of parts; json: arguments of calls as JSON text."""

    parts: bool = False
    json: bool = False

    def content(self, text: str) -> Any:
        """Return the content of a message."""
        return [{"type": "text", "text": text}] if self.parts else text

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Convert messages in OpenAI's form, whose calls have their arguments as JSON text."""
        return [self._message(message) for message in messages]

    def _message(self, message: Message) -> dict[str, Any]:
        made: dict[str, Any] = {key: value for key, value in message.items() if value is not None and key != "weight"}
        made["content"] = self.content(message.get("content") or "")
        if calls := message.get("tool_calls"):
            made["tool_calls"] = [self._call(call) for call in calls]
        else:
            made.pop("tool_calls", None)
        if reasoning := message.get("reasoning_content"):
            made["thinking"] = reasoning
        return made

    def _call(self, call: ToolCall) -> dict[str, Any]:
        function: dict[str, Any] = {**call["function"]}
        if not self.json and isinstance(function["arguments"], str):
            function["arguments"] = _parsed(function["arguments"])
        return {**call, "function": function}


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments
