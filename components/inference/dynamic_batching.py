"""Rows that wait for the model, and the threads that run them: alone when it is idle, together under load.

Whenever a thread is free it takes the row that has waited longest, with the waiting rows nearest to it in length, as
many as the engine's budget of tokens holds. So nobody waits for others to come, little is padded, and a batch grows
with the load by itself. Rows that are the same are computed once.

A batch that is alone has all cores. Under load each thread has one: two batches side by side, a core each, were 1.2
times as fast as one after the other on both (MiniLM-L6, fp32), since no core waits for the other at every layer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.inference.engine import Engine

Key = tuple[int, tuple[int, ...]]
BatchObserver = Callable[[int, int, int, float, int], None]
"""Told of a batch: rows, their tokens, tokens with padding, seconds in the model, rows that went on waiting."""
_log = logging.getLogger(__name__)


class QueueFull(Exception):
    """More work waits than is to. seconds: after which it is worth to ask again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the work of {seconds:.1f} s is waiting")
        self.seconds = seconds


@dataclass(eq=False)
class QueuedRow:
    """Token ids that wait or are being computed, and who wants the answer."""

    engine: Engine
    tokens: Sequence[int]
    key: Key
    wanted: list[asyncio.Future[Array]] = field(default_factory=list)

    @property
    def abandoned(self) -> bool:
        """Whether everyone who wanted it is gone."""
        return all(future.done() for future in self.wanted)


class Batcher:
    """One a replica, made and asked on its event loop.

    rows: most in a batch; max_queue_seconds: seconds of work that may wait; cores: threads, and what a batch alone
    is given; 1 on a GPU, which runs one batch at a time. observe: called after each batch, on its thread. Close it to
    end its threads.
    """

    def __init__(
        self, rows: int, max_queue_seconds: float, cores: int = 1, observe: BatchObserver | None = None
    ) -> None:
        self.rows, self.max_queue_seconds, self.cores = rows, max_queue_seconds, cores
        self.observe = observe
        self.speed = 0.0
        """Tokens a second, lately; 0 before the first batch."""
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Key, QueuedRow] = {}
        self._running: dict[Key, QueuedRow] = {}
        self._tokens = 0
        self._change = threading.Condition()
        self._closed = False
        for number in range(cores):
            threading.Thread(target=self._work, name=f"model-{number}", daemon=True).start()

    async def record(self, engine: Engine, rows: Sequence[Sequence[int]]) -> Array:
        """What the task records of each row of token ids, float32 [B, outputs].

        Raises QueueFull where too much waits, and what the model raises.
        """
        futures = self._put(engine, rows)
        try:
            return np.stack(await asyncio.gather(*futures))
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """End the threads once the batches under way are done; what waits is not answered."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def wait(self, tokens: int = 0) -> float:
        """Seconds until this many more tokens would be computed, by the speed of late."""
        return (self._tokens + tokens) / self.speed if self.speed else 0.0

    def waiting(self) -> tuple[int, int]:
        """Rows that wait at this moment, and their tokens; from any thread."""
        return len(self._waiting), self._tokens

    def _put(self, engine: Engine, rows: Sequence[Sequence[int]]) -> list[asyncio.Future[Array]]:
        with self._change:
            # A request that is large by itself is taken when nothing waits.
            if self._waiting and (seconds := self.wait(sum(map(len, rows)))) > self.max_queue_seconds:
                raise QueueFull(seconds)
            futures = [self._want(engine, tokens) for tokens in rows]
            self._change.notify(len(rows))
        return futures

    def _want(self, engine: Engine, tokens: Sequence[int]) -> asyncio.Future[Array]:
        future: asyncio.Future[Array] = self._loop.create_future()
        key = (id(engine), tuple(tokens))
        row = self._running.get(key) or self._waiting.get(key)
        if row is None:
            row = self._waiting[key] = QueuedRow(engine, tokens, key)
            self._tokens += len(tokens)
        row.wanted.append(future)
        return future

    def _work(self) -> None:
        import torch

        while True:
            with self._change:
                while not (batch := self._next()) and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                left = len(self._waiting)
                alone = len(batch) == len(self._running) and not left
            # Of this thread's own products; what another thread has begun is not changed by it.
            torch.set_num_threads(self.cores if alone else 1)
            began = perf_counter()
            found = _recorded(batch)
            tokens, seconds = sum(len(row.tokens) for row in batch), perf_counter() - began
            self._measure(tokens * (1 if alone else self.cores), seconds)
            self._loop.call_soon_threadsafe(self._settle, batch, found)
            self._tell(batch, tokens, seconds, left)

    def _tell(self, batch: list[QueuedRow], tokens: int, seconds: float, left: int) -> None:
        """Tell who observes, after the answers are on their way and off the lock."""
        if self.observe is None:
            return
        padded = len(batch) * max(len(row.tokens) for row in batch)
        try:
            self.observe(len(batch), tokens, padded, seconds, left)
        except Exception:  # noqa: BLE001 - whoever counts must not end this thread
            _log.exception("a batch could not be counted")

    def _next(self) -> list[QueuedRow]:
        """The batch that is next, taken out of what waits; [] where nothing does."""
        for key in [key for key, row in self._waiting.items() if row.abandoned]:
            self._tokens -= len(self._waiting.pop(key).tokens)
        batch = choose(list(self._waiting.values()), self.rows)
        for row in batch:
            self._running[row.key] = self._waiting.pop(row.key)
            self._tokens -= len(row.tokens)
        return batch

    def _settle(self, batch: list[QueuedRow], found: Sequence[Array | Exception]) -> None:
        """On the loop: hand out the answers, and the errors."""
        with self._change:
            for row in batch:
                self._running.pop(row.key, None)
        for row, answer in zip(batch, found, strict=True):
            for future in row.wanted:
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _measure(self, tokens: int, seconds: float) -> None:
        now = tokens / max(seconds, 1e-6)
        self.speed = now if not self.speed else 0.9 * self.speed + 0.1 * now


def _recorded(batch: list[QueuedRow]) -> Sequence[Array | Exception]:
    """What the model makes of each row, or its error: on an error rows are run one by one, so that one spoils no other.

    It raises nothing, since the thread has to go on.
    """
    try:
        return list(batch[0].engine.record([row.tokens for row in batch]))
    except Exception as error:  # noqa: BLE001 - it is the caller's to see
        return [error] if len(batch) == 1 else [_recorded([row])[0] for row in batch]


def choose(waiting: Sequence[QueuedRow], most: int) -> list[QueuedRow]:
    """The oldest row, and of the others for the same engine those nearest in length, within its budget of tokens.

    Of rows equally near the older ones; never more than `most`. waiting: the oldest first.
    """
    if not waiting:
        return []
    first = waiting[0]
    size, budget = len(first.tokens), first.engine.budget
    others = sorted(
        (row for row in waiting[1:] if row.engine is first.engine), key=lambda row: abs(len(row.tokens) - size)
    )
    chosen, longest = [first], max(size, 1)
    for row in others:
        width = max(longest, len(row.tokens))
        if len(chosen) == most or (len(chosen) + 1) * width > budget:
            break
        chosen.append(row)
        longest = width
    return chosen
