"""Rows that wait: who goes together, who is refused, what is computed once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raypath.components.core.errors import Unavailable
from raypath.components.inference.dynamic_batching import Batcher, QueuedRow, QueueFull, choose
from tests.waiting import until


class Slow:
    """An engine that waits for a sign and answers each row with its length."""

    budget = 64

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def record(self, rows: Sequence[Sequence[int]]) -> Any:
        self.began.set()
        assert self.go.wait(10)
        self.batches.append([len(row) for row in rows])
        if any(row[0] == 13 for row in rows):
            raise ValueError("thirteen")
        return np.array([[len(row)] for row in rows], np.float32)

    async def runs(self) -> None:
        """Wait until it computes the first batch."""
        assert await asyncio.to_thread(self.began.wait, 10)


def run(scene: Callable[[Batcher, Slow], Any], rows: int = 8, max_queue_seconds: float = 60.0) -> None:
    async def main() -> None:
        batcher, engine = Batcher(rows, max_queue_seconds), Slow()
        try:
            await asyncio.wait_for(scene(batcher, engine), 20)
        finally:
            engine.go.set()
            batcher.close()

    asyncio.run(main())


async def asked(batcher: Batcher, engine: Any, *requests: list[list[int]]) -> list[asyncio.Task[Any]]:
    """Requests whose rows wait or run by now."""
    tasks = [asyncio.create_task(batcher.record(engine, rows)) for rows in requests]
    await asyncio.sleep(0)
    return tasks


def row(engine: Any, length: int) -> QueuedRow:
    return QueuedRow(engine, [0] * length, (id(engine), (length,)))


def test_the_oldest_goes_with_those_nearest_in_length_within_the_budget() -> None:
    engine, other = Slow(), Slow()
    waiting = [row(engine, n) for n in (16, 60, 15, 2, 17)] + [row(other, 16)]
    assert [len(r.tokens) for r in choose(waiting, 8)] == [16, 15, 17]
    assert [len(r.tokens) for r in choose(waiting, 2)] == [16, 15]
    assert [len(r.tokens) for r in choose(waiting[1:], 8)] == [60]
    assert [len(r.tokens) for r in choose([row(engine, 100)], 8)] == [100], "a row beyond the budget goes alone"
    assert choose([], 8) == []


def test_everybody_is_given_their_own_and_load_makes_batches() -> None:
    async def scene(batcher: Batcher, engine: Any) -> None:
        tasks = await asked(batcher, engine, *([[n] * (n % 5 + 1)] for n in range(20, 60)))
        engine.go.set()
        found = await asyncio.gather(*tasks)
        assert [int(a[0, 0]) for a in found] == [n % 5 + 1 for n in range(20, 60)]
        assert len(engine.batches) <= 6, "at worst the first row alone, then eight at a time"
        assert max(map(len, engine.batches)) == 8
        several = await batcher.record(engine, [[1], [1, 2], [1, 2, 3]])
        np.testing.assert_array_equal(several, [[1], [2], [3]])

    run(scene)


def test_the_same_row_is_computed_once_while_it_waits_or_runs() -> None:
    async def scene(batcher: Batcher, engine: Any) -> None:
        tasks = await asked(batcher, engine, [[7, 7]])
        await engine.runs()
        tasks += await asked(batcher, engine, *[[[7, 7], [8]]] * 3)
        engine.go.set()
        await asyncio.gather(*tasks)
        assert engine.batches == [[2], [1]]

    run(scene)


def test_too_much_that_waits_is_refused_with_a_time() -> None:
    async def scene(batcher: Batcher, engine: Any) -> None:
        batcher.speed = 10.0
        tasks = await asked(batcher, engine, [[1] * 30])
        await engine.runs()
        tasks += await asked(batcher, engine, [[2] * 15])
        with pytest.raises(QueueFull) as caught:
            await batcher.record(engine, [[3] * 15])
        assert caught.value.seconds == pytest.approx(3.0)
        engine.go.set()
        await asyncio.gather(*tasks)
        await batcher.record(engine, [[4] * 500])

    run(scene, max_queue_seconds=2.0)


def test_who_has_gone_is_not_computed_for_and_an_error_reaches_who_asked() -> None:
    async def scene(batcher: Batcher, engine: Any) -> None:
        [first] = await asked(batcher, engine, [[1]])
        await engine.runs()
        [gone] = await asked(batcher, engine, [[2, 2, 2]])
        gone.cancel()
        engine.go.set()
        await first
        with pytest.raises(ValueError, match="thirteen"):
            await batcher.record(engine, [[13] * 60])
        assert float((await batcher.record(engine, [[5, 5]]))[0, 0]) == 2.0
        assert [3] not in engine.batches

    run(scene)


def test_a_row_that_the_model_cannot_take_spoils_no_other() -> None:
    async def scene(batcher: Batcher, engine: Any) -> None:
        tasks = await asked(batcher, engine, [[1]])
        await engine.runs()
        tasks += await asked(batcher, engine, [[5] * 3], [[13] * 3], [[7] * 2])
        engine.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, ValueError) for each in found] == [False, False, True, False]
        assert [3, 3, 2] in engine.batches, "they went together first"

    run(scene)


def test_each_batch_is_told_of_and_an_observer_that_fails_stops_nothing() -> None:
    told: list[tuple[int, int, int, float, int]] = []

    async def main() -> None:
        def observe(rows: int, tokens: int, padded: int, seconds: float, waiting: int) -> None:
            told.append((rows, tokens, padded, seconds, waiting))
            free.append(batcher._change.acquire(blocking=False))
            batcher._change.release()
            raise ValueError("an observer's own")

        free: list[bool] = []
        batcher, engine = Batcher(2, 60.0, observe=observe), Slow()
        try:
            tasks = await asked(batcher, engine, [[1] * 4])
            await engine.runs()
            tasks += await asked(batcher, engine, [[2] * 5, [3] * 7, [4] * 20])
            assert batcher.waiting() == (3, 32)
            engine.go.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 10)
            [last] = await asked(batcher, engine, [[5]])
            await asyncio.wait_for(last, 10)
            assert batcher.waiting() == (0, 0)
        finally:
            batcher.close()
        while len(told) < 4:
            await asyncio.sleep(0.01)
        assert free == [True] * 4

    asyncio.run(main())
    assert [(rows, tokens, padded, left) for rows, tokens, padded, _, left in told] == [
        (1, 4, 4, 0),
        (2, 12, 14, 1),
        (1, 20, 20, 0),
        (1, 1, 1, 0),
    ]
    assert all(seconds >= 0 for *_, seconds, _ in told)


def test_a_batch_that_is_stuck_fails_the_health_check() -> None:
    async def scene(batcher: Batcher, engine: Any) -> None:
        batcher.check_health(0.0)
        [task] = await asked(batcher, engine, [[1]])
        await engine.runs()
        batcher.check_health(60.0)
        with pytest.raises(Unavailable, match="the batch of thread model-0 has made no progress in 0 seconds"):
            batcher.check_health(0.0)
        engine.go.set()
        await task
        await asyncio.to_thread(until, lambda: not batcher._clocks[0]._start)
        batcher.check_health(0.0)

    run(scene)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_fails_the_health_check() -> None:
    class Ends(Slow):
        def record(self, rows: Sequence[Sequence[int]]) -> Any:
            raise SystemExit

    async def scene(batcher: Batcher, engine: Any) -> None:
        [task] = await asked(batcher, Ends(), [[1]])
        await asyncio.to_thread(batcher._threads[0].join, 10)
        with pytest.raises(Unavailable, match="the thread model-0 of the batcher has ended"):
            batcher.check_health(60.0)
        task.cancel()

    run(scene)


def test_the_speed_follows_what_was_measured() -> None:
    batcher: Any = SimpleNamespace(speed=0.0)
    for tokens, seconds, speed in ((100, 0.5, 200.0), (100, 0.25, 220.0), (0, 1.0, 198.0)):
        Batcher._update_speed(batcher, tokens, seconds)
        assert batcher.speed == pytest.approx(speed)
