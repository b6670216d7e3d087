"""Dynamic batching: a queue of rows and the threads that run them through the model.

A free thread takes the oldest row and the queued rows nearest to it in length, within the engine's token budget. No row
waits for a batch to fill, padding is small, and the batch size grows with the load. Identical rows are computed once.

A single batch uses all cores. Under load each thread uses one core: two concurrent batches with one core each are 1.2
times as fast as two consecutive ones with two cores (MiniLM-L6, fp32), since cores do not synchronize at every layer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic, perf_counter

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import Unavailable
from raypath.components.inference.engine import Engine

Key = tuple[int, tuple[int, ...]]
BatchObserver = Callable[[int, int, int, float, int], None]
"""Receives, for each batch: rows, tokens, tokens with padding, seconds in the model, rows still queued."""
_log = logging.getLogger(__name__)


class QueueFull(Exception):
    """The queue is full. seconds: when to retry."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.1f} seconds of work are queued")
        self.seconds = seconds


class WorkClock:
    """Time for which a thread has been at its current piece of work, read by other threads.

    The thread runs each piece in a `with` block. name: of the thread's work, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = monotonic()

    def __exit__(self, *_: object) -> None:
        self._start = 0.0

    def check(self, stalled: float) -> None:
        """Raise Unavailable if the current piece has taken more than `stalled` seconds."""
        start = self._start
        if start and monotonic() - start > stalled:
            raise Unavailable(f"{self.name} has made no progress in {stalled:g} seconds", fix="replace the replica")


@dataclass(slots=True)
class CoreSeconds:
    """Core seconds that the rows of a request took: its share of each batch, by tokens."""

    total: float = 0.0


Outcome = tuple[Array, float]
"""Output of a row, and its core seconds for each caller."""


@dataclass(eq=False)
class QueuedRow:
    """Token ids of a queued or running row, and the futures of its callers."""

    engine: Engine
    tokens: Sequence[int]
    key: Key
    futures: list[asyncio.Future[Outcome]] = field(default_factory=list)

    @property
    def abandoned(self) -> bool:
        """True if all callers have been cancelled."""
        return all(future.done() for future in self.futures)


class Batcher:
    """Batches rows of concurrent requests. Create and use it on one event loop; `close` ends its threads.

    Args:
        rows: Maximum number of rows in a batch.
        max_queue_seconds: Queued work above which rows are rejected.
        cores: Number of threads, and the cores of a single batch; 1 on a GPU, which runs one batch at a time.
        observe: Called after each batch, on its thread.
    """

    def __init__(
        self, rows: int, max_queue_seconds: float, cores: int = 1, observe: BatchObserver | None = None
    ) -> None:
        self.rows, self.max_queue_seconds, self.cores = rows, max_queue_seconds, cores
        self.observe = observe
        self.speed = 0.0
        """Recent throughput in tokens per second; 0 before the first batch."""
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Key, QueuedRow] = {}
        self._running: dict[Key, QueuedRow] = {}
        self._tokens = 0
        self._change = threading.Condition()
        self._closed = False
        names = [f"model-{number}" for number in range(cores)]
        self._clocks = [WorkClock(f"the batch of thread {name}") for name in names]
        self._threads = [
            threading.Thread(target=self._work, args=[clock], name=name, daemon=True)
            for name, clock in zip(names, self._clocks, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    async def record(self, engine: Engine, rows: Sequence[Sequence[int]], spent: CoreSeconds | None = None) -> Array:
        """Return the outputs of each row of token ids, float32 [B, outputs].

        spent: Increased by the time of the rows that the model ran, also if the caller is cancelled meanwhile.

        Raises QueueFull, and what the model raises.
        """
        futures = self._enqueue(engine, rows)
        try:
            return np.stack([output for output, _ in await asyncio.gather(*futures)])
        finally:
            for future in futures:
                if not future.cancel() and spent is not None and not future.cancelled() and not future.exception():
                    spent.total += future.result()[1]

    def close(self) -> None:
        """Stop the threads after their current batches; queued rows are dropped."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def check_health(self, stalled: float) -> None:
        """Raise Unavailable if a thread has ended, or has not finished a batch in `stalled` seconds; thread-safe."""
        for thread in self._threads:
            if not (self._closed or thread.is_alive()):
                raise Unavailable(f"the thread {thread.name} of the batcher has ended", fix="replace the replica")
        for clock in self._clocks:
            clock.check(stalled)

    def wait(self, tokens: int = 0) -> float:
        """Return the seconds until this many more tokens would be computed, by the recent throughput."""
        return (self._tokens + tokens) / self.speed if self.speed else 0.0

    def waiting(self) -> tuple[int, int]:
        """Return the number of queued rows and their tokens; thread-safe."""
        return len(self._waiting), self._tokens

    def _enqueue(self, engine: Engine, rows: Sequence[Sequence[int]]) -> list[asyncio.Future[Outcome]]:
        with self._change:
            # A large request is accepted if the queue is empty.
            if self._waiting and (seconds := self.wait(sum(map(len, rows)))) > self.max_queue_seconds:
                raise QueueFull(seconds)
            futures = [self._enqueue_row(engine, tokens) for tokens in rows]
            self._change.notify(len(rows))
        return futures

    def _enqueue_row(self, engine: Engine, tokens: Sequence[int]) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = self._loop.create_future()
        key = (id(engine), tuple(tokens))
        row = self._running.get(key) or self._waiting.get(key)
        if row is None:
            row = self._waiting[key] = QueuedRow(engine, tokens, key)
            self._tokens += len(tokens)
        row.futures.append(future)
        return future

    def _work(self, clock: WorkClock) -> None:
        import torch

        while True:
            with self._change:
                while not (batch := self._next()) and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                left = len(self._waiting)
                alone = len(batch) == len(self._running) and not left
            # Affects matmuls of this thread only, not those that another thread has started.
            torch.set_num_threads(self.cores if alone else 1)
            began = perf_counter()
            with clock:
                found = _run_model(batch)
            tokens, seconds = sum(len(row.tokens) for row in batch), perf_counter() - began
            self._update_speed(tokens * (1 if alone else self.cores), seconds)
            per_token = seconds * (self.cores if alone else 1) / max(tokens, 1)
            self._loop.call_soon_threadsafe(self._resolve, batch, found, per_token)
            self._observe(batch, tokens, seconds, left)

    def _observe(self, batch: list[QueuedRow], tokens: int, seconds: float, left: int) -> None:
        """Call the observer, after the results are delivered and without the lock."""
        if self.observe is None:
            return
        padded = len(batch) * max(len(row.tokens) for row in batch)
        try:
            self.observe(len(batch), tokens, padded, seconds, left)
        except Exception:  # noqa: BLE001 - an error of the observer must not end this thread
            _log.exception("a batch could not be recorded")

    def _next(self) -> list[QueuedRow]:
        """Take the next batch from the queue; [] if it is empty."""
        for key in [key for key, row in self._waiting.items() if row.abandoned]:
            self._tokens -= len(self._waiting.pop(key).tokens)
        batch = choose(list(self._waiting.values()), self.rows)
        for row in batch:
            self._running[row.key] = self._waiting.pop(row.key)
            self._tokens -= len(row.tokens)
        return batch

    def _resolve(self, batch: list[QueuedRow], found: Sequence[Array | Exception], per_token: float) -> None:
        """Deliver results and errors to the futures, on the event loop. per_token: core seconds."""
        with self._change:
            for row in batch:
                self._running.pop(row.key, None)
        for row, answer in zip(batch, found, strict=True):
            for future in row.futures:
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result((answer, len(row.tokens) * per_token / len(row.futures)))

    def _update_speed(self, tokens: int, seconds: float) -> None:
        now = tokens / max(seconds, 1e-6)
        self.speed = now if not self.speed else 0.9 * self.speed + 0.1 * now


def _run_model(batch: list[QueuedRow]) -> Sequence[Array | Exception]:
    """Return the output or the error of each row; after an error rows run one by one, so that only faulty ones fail.

    Raises nothing, since the thread has to continue.
    """
    try:
        return list(batch[0].engine.record([row.tokens for row in batch]))
    except Exception as error:  # noqa: BLE001 - delivered to the caller
        return [error] if len(batch) == 1 else [_run_model([row])[0] for row in batch]


def choose(waiting: Sequence[QueuedRow], most: int) -> list[QueuedRow]:
    """Choose a batch: the oldest row and the rows nearest in length for the same engine, within its token budget.

    Older rows are preferred among equally near ones. waiting: oldest first; most: maximum number of rows.
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
