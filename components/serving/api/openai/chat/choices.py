"""Choices of a response while they are generated: their text, tokens, calls of tools and the reason of their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from raypath.components.inference.generation.engine import Finish, SamplingSettings
from raypath.components.models.chat_template.calls import CallForm, ParsedCall
from raypath.components.models.chat_template.text_stream import IncrementalDecoder, StopStrings

if TYPE_CHECKING:
    from raypath.components.inference.generation.streaming_engine import Piece
    from raypath.components.models.chat_template import ChatTemplate
    from raypath.components.privacy.output_filter import OutputFilter
    from raypath.components.serving.metering.usage import Usage
    from raypath.components.serving.model_versions import LoadedLanguageModel
    from raypath.components.serving.protocol import LanguageModelService


@dataclass(frozen=True)
class Token:
    """Generated token. top: ids and log-probabilities of the most probable ones."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class Delta:
    """Addition to a choice. tokens: empty without log-probabilities. finish: OpenAI's reason of its end, "" before."""

    index: int
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    calls: list[ParsedCall] = field(default_factory=list)
    finish: str = ""


class Choice:
    """One choice.

    Args:
        form: calls of tools that its text may have, None without tools.
        forced: the text is one call, whose opening is the end of the prompt.
        single: more calls than one are left out.
        guard: replaces personal data and secrets in what is shown; None shows all.
    """

    def __init__(
        self,
        index: int,
        template: ChatTemplate,
        stops: Sequence[str],
        form: CallForm | None = None,
        *,
        forced: bool = False,
        single: bool = False,
        guard: OutputFilter | None = None,
    ) -> None:
        self.index, self.finish = index, ""
        # A special token that opens calls would be left out of the text.
        special = form is not None and template.is_special(form.opening)
        self._decoder = IncrementalDecoder(partial(template.decode, special=special))
        self._stops, self._form = StopStrings(stops), form
        self._held, self._is_plain, self._in_calls = "", form is None, forced
        self._forced, self._most, self._guard = forced, 1 if single else None, guard

    def push(self, piece: Piece) -> Delta:
        """Add a piece and return what can be shown."""
        last = piece.finish is not None
        text = self._stops.push(self._decoder.push(piece.ids, last), last)
        delta = Delta(self.index, tokens=_tokens(piece) if piece.logprobs else [])
        if last or self._stops.found:
            delta.finish = "length" if piece.finish is Finish.LENGTH and not self._stops.found else "stop"
        self._show(text, delta)
        if self._guard is not None:
            delta.text = self._guard.push(delta.text, last=bool(delta.finish))
            delta.calls = [call._replace(arguments=self._guard.arguments(call.arguments)) for call in delta.calls]
        self.finish = delta.finish
        return delta

    def _show(self, text: str, delta: Delta) -> None:
        """Set text and calls of a delta; what may be a call is held back until the end."""
        if self._is_plain or self._form is None:
            delta.text = text
            return
        self._held += text
        if delta.finish:
            before = self._form.opening if self._forced else ""
            text, calls = self._form.parse(before + self._held)
            # Of a call that was cut off, the client gets the text.
            delta.text, delta.calls = (text if calls else self._held), calls[: self._most]
            delta.finish = "tool_calls" if delta.calls and delta.finish == "stop" else delta.finish
        elif not self._in_calls:
            start = self._form.begins(self._held)
            delta.text, self._held = self._held[:start], self._held[start:]
            self._in_calls = bool(self._held) and self._held.startswith(self._form.opening)
            # Calls without an opening are a response as a whole.
            self._is_plain = not self._form.opening and bool(delta.text.strip())


def _tokens(piece: Piece) -> list[Token]:
    known = zip(piece.ids, piece.logprobs, piece.top or [[] for _ in piece.ids], strict=True)
    return [Token(number, logprob, tuple(top)) for number, logprob, top in known]


async def deltas(
    service: LanguageModelService,
    model: LoadedLanguageModel,
    requests: Sequence[tuple[list[int], SamplingSettings]],
    choices: Sequence[Choice],
    usage: Usage,
) -> AsyncGenerator[Delta, None]:
    """Yield the deltas of all choices as they come; closing it aborts what is being generated. Raises what
    `LanguageModelService.generate` raises."""
    prompts = {id(prompt): len(prompt) for prompt, _ in requests}
    usage.reserve(sum(prompts.values()) + sum(settings.max_new_tokens for _, settings in requests))
    seen: set[int] = set()
    sources = []
    for (prompt, settings), choice in zip(requests, choices, strict=True):
        counted = 0 if id(prompt) in seen else len(prompt)
        seen.add(id(prompt))
        sources.append(_deltas(service, model, prompt, settings, choice, usage, counted))
    if len(sources) == 1:
        async with aclosing(sources[0]) as only:
            async for delta in only:
                yield delta
        return
    queue: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue(len(sources))
    tasks = [asyncio.create_task(_drain(source, queue)) for source in sources]
    left = len(tasks)
    try:
        while left:
            found = await queue.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _deltas(
    service: LanguageModelService,
    model: LoadedLanguageModel,
    prompt: list[int],
    settings: SamplingSettings,
    choice: Choice,
    usage: Usage,
    counted: int,
) -> AsyncGenerator[Delta, None]:
    async with aclosing(service.generate(model, prompt, settings, usage, counted)) as pieces:
        async for piece in pieces:
            yield choice.push(piece)
            if choice.finish:
                return


async def _drain(source: AsyncGenerator[Delta, None], queue: asyncio.Queue[Delta | BaseException | None]) -> None:
    """Put the deltas of a choice into the queue, then None or its error."""
    try:
        async with aclosing(source):
            async for delta in source:
                await queue.put(delta)
    except Exception as error:  # noqa: BLE001 - it is raised where the queue is read
        await queue.put(error)
    else:
        await queue.put(None)
