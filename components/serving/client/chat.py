"""Chat with an endpoint: requests and responses in OpenAI's form. pydantic only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from raypath.components.core.errors import Unavailable, UserError
from raypath.components.serving.client.transport import Request

Messages = str | Sequence[Mapping[str, Any]]
"""Messages in OpenAI's form; a text is one message of the user."""


class ChatResponse(BaseModel):
    """Response of a language model to a conversation."""

    model_config = ConfigDict(frozen=True)

    text: str
    finish: str
    """stop, length, or tool_calls."""
    model: str
    version: int
    prompt_tokens: int
    tokens: int
    """Tokens of the response."""
    tool_calls: list[dict[str, Any]] = []
    """Calls of tools, in OpenAI's form."""


def chat_request(messages: Messages, model: str, settings: Mapping[str, Any]) -> Request:
    """Return the request for the next message of a conversation. Raises UserError for no messages."""
    given = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(each) for each in messages]
    if not given:
        raise UserError("a conversation has at least one message", fix="give a text, or a list of messages")
    return Request("POST", "/v1/chat/completions", {**settings, "model": model, "messages": given})


def read_chat(body: bytes, url: str) -> ChatResponse:
    """Read the response of an endpoint. Raises UserError for one that is none."""
    try:
        found = json.loads(body)
        choice, used = found["choices"][0], found["usage"]
        return ChatResponse(
            text=choice["message"]["content"] or "",
            finish=choice["finish_reason"],
            model=found["model"],
            version=found["version"],
            prompt_tokens=used["prompt_tokens"],
            tokens=used["completion_tokens"],
            tool_calls=choice["message"].get("tool_calls") or [],
        )
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{url} returned something that is not a chat completion", fix="check the URL") from None


def read_texts(lines: Iterable[str], url: str) -> Iterator[str]:
    """Yield the texts of a stream as they come. Raises Unavailable where it ends with an error, or too early."""
    for line in lines:
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            return
        if data == line:
            continue
        event = json.loads(data)
        if "error" in event:
            raise Unavailable(f"{url}: {event['error']['message']}", fix="send the request again")
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                yield text
    raise Unavailable(f"{url}: the response ended before it was complete", fix="send the request again")
