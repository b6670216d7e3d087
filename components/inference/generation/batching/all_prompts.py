"""Batch generation by an engine that is stepped: all prompts pass through it, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raypath.components.inference.generation.engine import (
    Finish,
    Generated,
    Progress,
    SamplingSettings,
    check_prompts,
)
from raypath.components.inference.generation.streaming_engine import Piece

IN_FLIGHT = 256
"""Most prompts that are in the engine at a time."""


class SteppedEngine:
    """Base of engines whose library schedules the requests. A subclass has the rest of `StreamingEngine`."""

    context: int
    tokenizer: Any
    _vocabulary: int

    if TYPE_CHECKING:

        def has_work(self) -> bool: ...
        def step(self) -> list[Piece]: ...

    def _add(self, request_id: str, prompt: Sequence[int], settings: SamplingSettings, repeat: int) -> None:
        """Queue a request whose prompt was checked. repeat: how often the same one came before it. Raises DataError."""
        raise NotImplementedError

    def add(self, request_id: str, prompt: Sequence[int], settings: SamplingSettings) -> None:
        """Queue a request; see `StreamingEngine`. Raises DataError as `check_prompts`, and for settings that the engine
        does not take, such as an adapter that is not loaded or a schema that has no grammar."""
        check_prompts([prompt], self.context, self._vocabulary)
        self._add(request_id, prompt, settings, 0)

    def generate(
        self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, progress: Progress | None = None
    ) -> list[Generated]:
        """Return an answer to each prompt, in the same order, while nothing else is in flight; see `GenerationEngine`.

        Raises the error of a request that fails.
        """
        from raypath.components.inference.generation.batching.sampling import count_repeats

        check_prompts(prompts, self.context, self._vocabulary)
        repeats, found = count_repeats(prompts), [Piece(str(row)) for row in range(len(prompts))]
        waiting, running, done = list(range(len(prompts)))[::-1], 0, 0
        while waiting or self.has_work():
            while waiting and running < IN_FLIGHT:
                row = waiting.pop()
                self._add(str(row), prompts[row], settings, repeats[row])
                running += 1
            for piece in self.step():
                found[int(piece.request_id)].extend(piece)
                if piece.error is not None:
                    raise piece.error
                if piece.finish is not None:
                    running, done = running - 1, done + 1
                    if progress is not None:
                        progress(done, len(prompts))
        texts = (self.tokenizer.decode(each.ids, skip_special_tokens=True) for each in found)
        return [
            Generated(each.ids, text, each.finish or Finish.LENGTH, each.logprobs)
            for each, text in zip(found, texts, strict=True)
        ]
