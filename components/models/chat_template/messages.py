"""Messages as templates expect them: arguments of calls as objects, and reasoning under the names in use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from raypath.components.core.conversations import Message


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Convert messages in OpenAI's form, whose calls have their arguments as JSON text."""
    return [_plain(message) for message in messages]


def _plain(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {key: value for key, value in message.items() if value is not None and key != "weight"}
    made["content"] = made.get("content") or ""
    if calls := made.pop("tool_calls", None):
        made["tool_calls"] = [_call(call) for call in calls]
    if reasoning := made.get("reasoning_content"):
        made["thinking"] = reasoning
    return made


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"] or "{}")
        except ValueError:
            return {**call, "function": function}
    return {**call, "function": function}
