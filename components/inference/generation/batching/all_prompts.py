"""Batch generation by an engine that is stepped: all prompts pass through it, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raypath.components.inference.generation.engine import Finish, Generated, Progress
from raypath.components.inference.generation.streaming_engine import Piece, StreamingEngine

IN_FLIGHT = 256
"""Most prompts that are in the engine at a time."""


def answer_all(
    engine: StreamingEngine,
    prompts: Sequence[Sequence[int]],
    add: Callable[[str, Sequence[int], int], None],
    tokenizer: Any,
    progress: Progress | None = None,
) -> list[Generated]:
    """Return an answer to each prompt, in the same order.

    Args:
        engine: nothing is in flight.
        add: queues a request, given its id, the prompt and how often the same one came before it.

    Raises the error of a request that fails.
    """
    from raypath.components.inference.generation.batching.sampling import count_repeats

    repeats, found = count_repeats(prompts), [Piece(str(row)) for row in range(len(prompts))]
    waiting, running, done = list(range(len(prompts)))[::-1], 0, 0
    while waiting or engine.has_work():
        while waiting and running < IN_FLIGHT:
            row = waiting.pop()
            add(str(row), prompts[row], repeats[row])
            running += 1
        for piece in engine.step():
            found[int(piece.request_id)].extend(piece)
            if piece.error is not None:
                raise piece.error
            if piece.finish is not None:
                running, done = running - 1, done + 1
                if progress is not None:
                    progress(done, len(prompts))
    texts = (tokenizer.decode(each.ids, skip_special_tokens=True) for each in found)
    return [
        Generated(each.ids, text, each.finish or Finish.LENGTH, each.logprobs)
        for each, text in zip(found, texts, strict=True)
    ]
