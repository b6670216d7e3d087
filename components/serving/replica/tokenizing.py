"""Tokenization in a replica: short requests on the event loop, long ones on a thread, whose queue counts as load."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Any, TypeVar

from raypath.components.data.tokenization.tokenizer import Tokenizer
from raypath.components.inference.dynamic_batching import QueueFull, WorkClock

T = TypeVar("T")
INLINE_CHARACTERS = 4_000
"""Texts up to this total length are tokenized on the event loop; longer ones on the thread."""


class TokenizerThread:
    """Thread that tokenizes long requests, one after the other. Used on one event loop.

    max_queue_seconds: Queued work above which requests are rejected.
    """

    def __init__(self, max_queue_seconds: float) -> None:
        self.max_queue_seconds = max_queue_seconds
        self.speed = 0.0
        """Recent throughput in characters per second; 0 before the first request."""
        self._characters = 0
        """Characters that are queued or being tokenized."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._clock = WorkClock("the tokenizer")

    def wait(self, characters: int = 0) -> float:
        """Return the seconds until this many more characters would be tokenized, by the recent throughput."""
        return (self._characters + characters) / self.speed if self.speed and self._characters else 0.0

    def check_health(self, stalled: float) -> None:
        """Raise Unavailable if a text on the thread has taken more than `stalled` seconds; thread-safe."""
        self._clock.check(stalled)

    async def encode(self, tokenizer: Tokenizer, texts: list[Any]) -> tuple[list[list[int]], float]:
        """Return the token ids of each text and the seconds that it took. Raises QueueFull."""
        return await self.run(sum(map(len, texts)), lambda: tokenizer.encode(texts))

    async def run(self, size: int, work: Callable[[], T]) -> tuple[T, float]:
        """Return what `work` returns, which tokenizes `size` characters, and its seconds. Raises QueueFull."""
        if size < INLINE_CHARACTERS:
            return _timed(work)
        if (seconds := self.wait(size)) > self.max_queue_seconds:
            raise QueueFull(seconds)
        loop = asyncio.get_running_loop()
        self._characters += size
        future = self._pool.submit(self._clocked, work)

        def ended(future: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._end, size, future)

        # Work that has begun goes on when its request is cancelled, and counts until it ends.
        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)

    def _clocked(self, work: Callable[[], T]) -> tuple[T, float]:
        with self._clock:
            return _timed(work)

    def _end(self, size: int, work: Future[tuple[Any, float]]) -> None:
        self._characters -= size
        if not work.cancelled() and work.exception() is None:
            now = size / max(work.result()[1], 1e-6)
            self.speed = now if not self.speed else 0.9 * self.speed + 0.1 * now


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = perf_counter()
    return work(), perf_counter() - began
