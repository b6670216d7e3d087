"""Responses of /v1/responses, complete: the object with its output items."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raypath.components.serving.api.openai.chat.responses import Complete, shown_tokens
from raypath.components.serving.api.openai.responses.conversion import wants_logprobs
from raypath.components.serving.api.openai.responses.requests import ResponsesRequest

if TYPE_CHECKING:
    from raypath.components.models.chat_template.calls import ParsedCall
    from raypath.components.serving.api.openai.chat.choices import Token
    from raypath.components.serving.metering.usage import Usage
    from raypath.components.serving.model_versions import LoadedLanguageModel

LENGTH = "length"


class ResponseWriter:
    """Response to one request."""

    def __init__(self, model: LoadedLanguageModel, usage: Usage, given: ResponsesRequest) -> None:
        self.model, self.usage, self.given = model, usage, given
        self.id, self.created = f"resp_{uuid.uuid4().hex}", int(time.time())
        self.shows_logprobs = wants_logprobs(given)

    def complete(self, choices: Sequence[Complete]) -> dict[str, Any]:
        """Return the body of a response that is not streamed; it has one choice."""
        [found] = choices
        output = [self.call(each, found.finish) for each in found.calls]
        if found.text or not found.calls:
            part = self.text_part(found.text, self.logprobs(found.tokens))
            output.insert(0, self.message(new_id("msg"), [part], found.finish))
        return self.ended(found.finish, output)

    def ended(self, finish: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the response at its end. finish: as of chat completions."""
        details = {"reason": "max_output_tokens"} if finish == LENGTH else None
        found = {**self.body(status_of(finish), output), "incomplete_details": details, "usage": self._used()}
        return {**found, "completed_at": None if details else int(time.time())}

    def body(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the response with its settings."""
        given, model = self.given, self.model
        named = {"id": self.id, "object": "response", "created_at": self.created, "status": status}
        state = {"background": False, "error": None, "incomplete_details": None, "store": False}
        sampling = {
            "temperature": 1.0 if given.temperature is None else given.temperature,
            "top_p": 1.0 if given.top_p is None else given.top_p,
            "top_logprobs": given.top_logprobs or 0,
            "max_output_tokens": given.max_output_tokens,
        }
        tools = {
            "tools": [{"strict": None, **each.model_dump(exclude_none=True)} for each in given.tools or ()],
            "tool_choice": _plain(given.tool_choice) or "auto",
            "parallel_tool_calls": given.parallel_tool_calls is not False,
        }
        text = _plain(given.text.format) if given.text is not None and given.text.format is not None else None
        more = {
            "instructions": given.instructions,
            "metadata": given.metadata or {},
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "text": {"format": text or {"type": "text"}},
            "truncation": "disabled",
            "usage": None,
        }
        served = {"model": model.name, "version": model.version}
        return {**named, **served, **state, "output": output, **sampling, **tools, **more}

    def message(self, id: str, content: list[dict[str, Any]], finish: str) -> dict[str, Any]:
        """Return an item with text."""
        return {"id": id, "type": "message", "status": status_of(finish), "role": "assistant", "content": content}

    def call(self, call: ParsedCall, finish: str, arguments: str | None = None) -> dict[str, Any]:
        """Return an item that calls a function. arguments: None for those of the call."""
        named = {"call_id": f"call_{uuid.uuid4().hex[:24]}", "name": call.name}
        shown = call.arguments if arguments is None else arguments
        return {"id": new_id("fc"), "type": "function_call", "status": status_of(finish), **named, "arguments": shown}

    def text_part(self, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the content of a message."""
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def logprobs(self, tokens: Sequence[Token]) -> list[dict[str, Any]]:
        """Return the log-probabilities of tokens, if they are wanted."""
        return shown_tokens(self.model, tokens) if self.shows_logprobs else []

    def _used(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "input_tokens": usage.tokens - usage.generated_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.generated_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.tokens,
        }


def new_id(kind: str) -> str:
    """Return an id of an item."""
    return f"{kind}_{uuid.uuid4().hex}"


def status_of(finish: str) -> str:
    """Return the status for the reason of an end; "" is none yet."""
    return "in_progress" if not finish else "incomplete" if finish == LENGTH else "completed"


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else value.model_dump(by_alias=True, exclude_none=True)
