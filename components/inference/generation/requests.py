"""Requests of a batch generation: rows of a file with a conversation, and OpenAI's batch format.

A row has `messages` in OpenAI's form, with `tools` if there are any, or a text `prompt`; an assistant message at the
end is not part of the prompt. A row of OpenAI's batch format has `custom_id`, `method`, `url` and `body`, which has the
settings of the request too; a wrong body is an error of its row, as it is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from raypath.components.core.conversations import Message, Tool
from raypath.components.data.columns.conversations.notations import messages_of, tools_of
from raypath.components.data.columns.values import is_valid_unicode

URL = "/v1/chat/completions"
"""Endpoint of OpenAI's batch format that is supported."""
_SAME = (
    *("temperature", "top_p", "top_k", "min_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "seed"),
)
SETTINGS = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", **{name: name for name in _SAME}}
"""Settings of a body by OpenAI's names, and of a few that vLLM has too, and Raypath's names."""
_IGNORED = ("model", "user", "metadata", "store", "service_tier", "messages", "tools", "functions")
_DEFAULTS: Mapping[str, Any] = {"n": 1, "stream": False, "logprobs": False, "tool_choice": "auto"}
"""Values of other settings that change nothing."""


@dataclass(frozen=True)
class Request:
    """Conversation to respond to. settings: of this request alone; error: what is wrong with it, "" if nothing is."""

    messages: list[Message] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def dumps(self) -> str:
        """Return the request as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> Request:
        """Read what `dumps` wrote."""
        return cls(**json.loads(text))


def is_batch_format(row: Mapping[str, Any]) -> bool:
    """Return True for a row of OpenAI's batch format."""
    return "custom_id" in row and "body" in row


def request_of(row: Mapping[str, Any], text: str = "") -> Request:
    """Read the request of a row. text: name of a column of prompts. Raises ValueError with what is wrong, as `row N
    ...`."""
    if not is_valid_unicode(json.dumps(row, ensure_ascii=False, default=str)):
        raise ValueError("has a lone surrogate (\\ud800-\\udfff)")
    if text:
        if not isinstance(row.get(text), str) or not row[text].strip():
            raise ValueError(f"has no text {text}")
        return Request([{"role": "user", "content": row[text]}])
    if is_batch_format(row):
        return _batch_request(row)
    tools = tools_of(row.get("tools"))
    if row.get("messages") is None:
        if not isinstance(row.get("prompt"), str):
            raise ValueError("has no conversation")
        return Request([{"role": "user", "content": row["prompt"]}], list(tools))
    return Request(_prompt(row["messages"]), list(tools))


def _prompt(given: Any) -> list[Message]:
    messages = messages_of(given)
    prompt = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
    if not prompt:
        raise ValueError("has no conversation")
    return prompt


def _batch_request(row: Mapping[str, Any]) -> Request:
    if not isinstance(row["custom_id"], str) or not row["custom_id"]:
        raise ValueError("has a custom_id that is not text")
    body = row["body"]
    try:
        if not isinstance(body, Mapping):
            raise ValueError("has a body that is not an object")
        if row.get("url") != URL or row.get("method") != "POST":
            raise ValueError(f"has another method or url than POST {URL}")
        messages, tools = messages_of(body.get("messages")), tools_of(body.get("tools"))
        if not messages:
            raise ValueError("has no messages")
        return Request(messages, list(tools), _settings(body))
    except ValueError as error:
        return Request(error=f"the request {error}")


def _settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a body by Raypath's names. Raises ValueError for one that would be ignored."""
    given = {name: value for name, value in body.items() if value is not None and name not in _IGNORED}
    for name, value in given.items():
        if name not in SETTINGS and value != _DEFAULTS.get(name):
            raise ValueError(f"sets {name}, which is not supported")
    return {SETTINGS[name]: value for name, value in given.items() if name in SETTINGS}
