"""Responses of chat and text completions in OpenAI's form: complete ones and the chunks of a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raypath.components.serving.api.openai.chat.choices import Delta, Token

if TYPE_CHECKING:
    from raypath.components.models.chat_template.calls import ParsedCall
    from raypath.components.serving.metering.usage import Usage
    from raypath.components.serving.model_versions import LoadedLanguageModel

LEAST_LOGPROB = -9999.0
"""Of a token without a probability, as JSON has no infinity."""


@dataclass
class Complete:
    """A choice as far as it is known."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    calls: list[ParsedCall] = field(default_factory=list)
    finish: str = ""

    def add(self, delta: Delta) -> None:
        """Append a delta."""
        self.text += delta.text
        self.tokens += delta.tokens
        self.calls += delta.calls
        self.finish = delta.finish or self.finish


class Writer:
    """Response to one request. top: most probable tokens to show with each, None without log-probabilities."""

    prefix = ""
    kind = ""
    chunk_kind = ""

    def __init__(self, model: LoadedLanguageModel, usage: Usage, top: int | None) -> None:
        self.model, self.usage, self.top = model, usage, top
        self.id, self.created = f"{self.prefix}-{uuid.uuid4().hex}", int(time.time())
        self._chunk_head = self._head(self.chunk_kind)

    def complete(self, choices: Sequence[Complete]) -> dict[str, Any]:
        """Return the body of a response that is not streamed."""
        made = [self._choice(index, each) for index, each in enumerate(choices)]
        return {**self._head(self.kind), "choices": made, "usage": self._used()}

    def begin(self, choices: int) -> list[dict[str, Any]]:
        """Return the chunks before the first text."""
        return []

    def chunk(self, delta: Delta) -> dict[str, Any]:
        """Return the chunk of a delta."""
        return {**self._chunk_head, "choices": [self._delta(delta)]}

    def last(self) -> dict[str, Any]:
        """Return the chunk with the usage."""
        return {**self._head(self.chunk_kind), "choices": [], "usage": self._used()}

    def _head(self, kind: str) -> dict[str, Any]:
        model = self.model
        named = {"model": model.name, "version": model.version, "system_fingerprint": f"version-{model.version}"}
        return {"id": self.id, "object": kind, "created": self.created, **named}

    def _used(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "prompt_tokens": usage.tokens - usage.generated_tokens,
            "completion_tokens": usage.generated_tokens,
            "total_tokens": usage.tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        }

    def _choice(self, index: int, found: Complete) -> dict[str, Any]:
        raise NotImplementedError

    def _delta(self, delta: Delta) -> dict[str, Any]:
        raise NotImplementedError

    def _name(self, token: int) -> str:
        return self.model.template.token_bytes.of(token).decode(errors="replace")


class ChatWriter(Writer):
    """Response of /v1/chat/completions."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def begin(self, choices: int) -> list[dict[str, Any]]:
        """Return a chunk with the role of each choice."""
        role = {"role": "assistant", "content": ""}
        return [
            {
                **self._head(self.chunk_kind),
                "choices": [{"index": n, "delta": role, "logprobs": None, "finish_reason": None}],
            }
            for n in range(choices)
        ]

    def _choice(self, index: int, found: Complete) -> dict[str, Any]:
        content = None if found.calls and not found.text else found.text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if found.calls:
            message["tool_calls"] = [_call(call) for call in found.calls]
        end = {"logprobs": self._logprobs(found.tokens), "finish_reason": found.finish}
        return {"index": index, "message": message, **end}

    def _delta(self, delta: Delta) -> dict[str, Any]:
        given: dict[str, Any] = {"content": delta.text} if delta.text else {}
        if delta.calls:
            given["tool_calls"] = [{"index": n, **_call(call)} for n, call in enumerate(delta.calls)]
        end = {"logprobs": self._logprobs(delta.tokens), "finish_reason": delta.finish or None}
        return {"index": delta.index, "delta": given, **end}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        return None if self.top is None else {"content": shown_tokens(self.model, tokens), "refusal": None}


class CompletionWriter(Writer):
    """Response of /v1/completions."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def _choice(self, index: int, found: Complete) -> dict[str, Any]:
        end = {"logprobs": self._logprobs(found.tokens), "finish_reason": found.finish}
        return {"index": index, "text": found.text, **end}

    def _delta(self, delta: Delta) -> dict[str, Any]:
        end = {"logprobs": self._logprobs(delta.tokens), "finish_reason": delta.finish or None}
        return {"index": delta.index, "text": delta.text, **end}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if self.top is None:
            return None
        names = [self._name(token.id) for token in tokens]
        starts = [sum(map(len, names[:n])) for n in range(len(names))]
        tops = [{self._name(n): logprob for n, logprob in token.top} for token in tokens] if self.top else None
        logprobs = [token.logprob for token in tokens]
        return {"tokens": names, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": starts}


def shown_tokens(model: LoadedLanguageModel, tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Return tokens with their log-probabilities and those of the most probable ones, in OpenAI's form."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        found = model.template.token_bytes.of(token)
        shown = {"token": found.decode(errors="replace"), "bytes": list(found)}
        return shown | {"logprob": max(logprob, LEAST_LOGPROB)}

    return [{**entry(each.id, each.logprob), "top_logprobs": [entry(*top) for top in each.top]} for each in tokens]


def _call(call: ParsedCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
