"""Rows that wait: who goes together, who is refused, what is computed once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from raypath.components.inference.dynamic_batching import Batcher, Busy, Row, choose


class Slow:
    """An engine that waits for a sign and answers each row with its length."""

    budget = 64

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[int]] = []

    def record(self, rows: Sequence[Sequence[int]]) -> Any:
        assert self.go.wait(10)
        self.batches.append([len(row) for row in rows])
        if any(row[0] == 13 for row in rows):
            raise ValueError("thirteen")
        return np.array([[len(row)] for row in rows], np.float32)


def run(scene: Callable[[Batcher, Slow], Any], rows: int = 8, patience: float = 60.0) -> None:
    async def main() -> None:
        batcher, engine = Batcher(rows, patience), Slow()
        try:
            await asyncio.wait_for(scene(batcher, engine), 20)
        finally:
            engine.go.set()
            batcher.close()

    asyncio.run(main())


def row(engine: Any, length: int) -> Row:
    return Row(engine, [0] * length, (id(engine), (length,)))


def test_the_oldest_goes_with_those_nearest_in_length_within_the_budget() -> None:
    engine, other = Slow(), Slow()
    waiting = [row(engine, n) for n in (16, 60, 15, 2, 17)] + [row(other, 16)]
    assert [len(r.tokens) for r in choose(waiting, 8)] == [16, 15, 17]
    assert [len(r.tokens) for r in choose(waiting, 2)] == [16, 15]
    assert [len(r.tokens) for r in choose(waiting[1:], 8)] == [60]
    assert [len(r.tokens) for r in choose([row(engine, 100)], 8)] == [100], "a row beyond the budget goes alone"
    assert choose([], 8) == []


def test_everybody_is_given_their_own_and_load_makes_batches() -> None:
    async def scene(batcher: Batcher, engine: Slow) -> None:
        asked = [asyncio.create_task(batcher.record(engine, [[n] * (n % 5 + 1)])) for n in range(20, 60)]  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        engine.go.set()
        found = await asyncio.gather(*asked)
        assert [int(a[0, 0]) for a in found] == [n % 5 + 1 for n in range(20, 60)]
        assert len(engine.batches) <= 10
        assert max(map(len, engine.batches)) == 8
        several = await batcher.record(engine, [[1], [1, 2], [1, 2, 3]])  # type: ignore[arg-type]
        np.testing.assert_array_equal(several, [[1], [2], [3]])

    run(scene)


def test_the_same_row_is_computed_once_while_it_waits_or_runs() -> None:
    async def scene(batcher: Batcher, engine: Slow) -> None:
        asked = [asyncio.create_task(batcher.record(engine, [[7, 7]]))]  # type: ignore[arg-type]
        await asyncio.sleep(0.05)  # it runs now
        asked += [asyncio.create_task(batcher.record(engine, [[7, 7], [8]])) for _ in range(3)]  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        engine.go.set()
        await asyncio.gather(*asked)
        assert engine.batches == [[2], [1]]

    run(scene)


def test_too_much_that_waits_is_refused_with_a_time() -> None:
    async def scene(batcher: Batcher, engine: Slow) -> None:
        batcher.speed = 10.0
        first = asyncio.create_task(batcher.record(engine, [[1] * 30]))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        second = asyncio.create_task(batcher.record(engine, [[2] * 15]))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        with pytest.raises(Busy) as caught:
            await batcher.record(engine, [[3] * 15])  # type: ignore[arg-type]
        assert caught.value.seconds == pytest.approx(3.0)
        engine.go.set()
        await asyncio.gather(first, second)
        await batcher.record(engine, [[4] * 500])  # type: ignore[arg-type]

    run(scene, patience=2.0)


def test_who_has_gone_is_not_computed_for_and_an_error_reaches_who_asked() -> None:
    async def scene(batcher: Batcher, engine: Slow) -> None:
        first = asyncio.create_task(batcher.record(engine, [[1]]))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(batcher.record(engine, [[2, 2, 2]]))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        gone.cancel()
        engine.go.set()
        await first
        with pytest.raises(ValueError, match="thirteen"):
            await batcher.record(engine, [[13] * 60])  # type: ignore[arg-type]
        assert float((await batcher.record(engine, [[5, 5]]))[0, 0]) == 2.0  # type: ignore[arg-type]
        assert [3] not in engine.batches

    run(scene)


def test_a_row_that_the_model_cannot_take_spoils_no_other() -> None:
    async def scene(batcher: Batcher, engine: Slow) -> None:
        rows = [[5] * 3, [13] * 3, [7] * 2]
        busy = asyncio.create_task(batcher.record(engine, [[1]]))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        asked = [asyncio.create_task(batcher.record(engine, [row])) for row in rows]  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        engine.go.set()
        found = await asyncio.gather(busy, *asked, return_exceptions=True)
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
            first = asyncio.create_task(batcher.record(engine, [[1] * 4]))  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
            rest = asyncio.create_task(batcher.record(engine, [[2] * 5, [3] * 7, [4] * 20]))  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
            assert batcher.waiting() == (3, 32)
            engine.go.set()
            await asyncio.wait_for(asyncio.gather(first, rest), 10)
            await asyncio.wait_for(batcher.record(engine, [[5]]), 10)  # type: ignore[arg-type]
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
