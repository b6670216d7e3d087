"""Events of a streamed response, each with its type and number: items are added, grow and are done, one by one."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from raypath.components.serving.api.openai.chat.choices import Delta
from raypath.components.serving.api.openai.responses.output import LENGTH, ResponseWriter, new_id

if TYPE_CHECKING:
    from raypath.components.models.chat_template.calls import ParsedCall
    from raypath.components.serving.api.openai.chat.respond import Deltas


async def events(writer: ResponseWriter, first: Delta, rest: Deltas) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events of a response, from its first delta and the others."""
    numbers, stream = itertools.count(), _ItemStream(writer)

    def numbered(given: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        return ({**each, "sequence_number": next(numbers)} for each in given)

    for event in numbered(stream.begin()):
        yield event
    async with aclosing(rest):
        for event in numbered(stream.push(first)):
            yield event
        async for delta in rest:
            for event in numbered(stream.push(delta)):
                yield event
    for event in numbered(stream.end()):
        yield event


class _ItemStream:
    """Output items while they are generated: a message, if there is text, and calls."""

    def __init__(self, writer: ResponseWriter) -> None:
        self.writer = writer
        self._output: list[dict[str, Any]] = []
        self._id, self._text, self._finish = "", "", ""
        self._logprobs: list[dict[str, Any]] = []

    def begin(self) -> Iterator[dict[str, Any]]:
        for kind in ("created", "in_progress"):
            yield {"type": f"response.{kind}", "response": self.writer.body("in_progress", [])}

    def push(self, delta: Delta) -> Iterator[dict[str, Any]]:
        self._finish = delta.finish
        logprobs = self.writer.logprobs(delta.tokens)
        if delta.text or (delta.finish and not delta.calls and not self._id) or (self._id and logprobs):
            yield from self._add_text(delta.text, logprobs)
        else:
            self._logprobs += logprobs
        if delta.finish:
            yield from self._end_text()
            for call in delta.calls:
                yield from self._add_call(call)

    def end(self) -> Iterator[dict[str, Any]]:
        kind = "incomplete" if self._finish == LENGTH else "completed"
        yield {"type": f"response.{kind}", "response": self.writer.ended(self._finish, self._output)}

    def _add_text(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if not self._id:
            self._id = new_id("msg")
            item = self.writer.message(self._id, [], "")
            yield {"type": "response.output_item.added", "output_index": 0, "item": item}
            yield self._of_part("response.content_part.added", part=self.writer.text_part("", []))
            logprobs = self._logprobs + logprobs
            self._logprobs = []
        self._text += text
        self._logprobs += logprobs
        if text or logprobs:
            yield self._of_part("response.output_text.delta", delta=text, logprobs=logprobs)

    def _end_text(self) -> Iterator[dict[str, Any]]:
        if not self._id:
            return
        part = self.writer.text_part(self._text, self._logprobs)
        yield self._of_part("response.output_text.done", text=self._text, logprobs=self._logprobs)
        yield self._of_part("response.content_part.done", part=part)
        item = self.writer.message(self._id, [part], self._finish)
        yield from self._done(item)

    def _add_call(self, call: ParsedCall) -> Iterator[dict[str, Any]]:
        item = self.writer.call(call, self._finish)
        index = len(self._output)
        begun = {**item, "status": "in_progress", "arguments": ""}
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        named = {"item_id": item["id"], "output_index": index}
        kind = "response.function_call_arguments"
        yield {"type": f"{kind}.delta", **named, "delta": call.arguments}
        yield {"type": f"{kind}.done", **named, "name": call.name, "arguments": call.arguments}
        yield from self._done(item)

    def _done(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"type": "response.output_item.done", "output_index": len(self._output), "item": item}
        self._output.append(item)

    def _of_part(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"type": kind, "item_id": self._id, "output_index": 0, "content_index": 0, **more}
