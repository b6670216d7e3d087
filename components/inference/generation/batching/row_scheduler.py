"""Scheduling of requests for transformers: rows join and leave the running batch between steps.

Each step adds a token to every running row, and computes the prompts of some that wait. Where the caches of an
architecture cannot be joined, requests that were admitted together stay a batch of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from raypath.components.inference.generation.streaming_engine import EngineStatistics, Piece

if TYPE_CHECKING:
    from raypath.components.inference.generation.batching.decoding import Answer, Forward, RunningBatch

PROMPT_TOKENS = 2_048
"""Most tokens of prompts in a step, padding included, but for a single prompt: running rows wait for them."""


class RowScheduler:
    """Requests of one model. rows: most at a time. budget: most tokens of all rows, with padding."""

    def __init__(self, forward: Forward, rows: int, budget: Callable[[], float]) -> None:
        self._forward, self._most, self._budget = forward, rows, budget
        self._capacity = 0.0
        self._waiting: deque[Answer] = deque()
        self._batches: list[RunningBatch] = []
        self._counts = {"prompt": 0, "generated": 0}

    def add(self, answer: Answer) -> None:
        """Queue a request."""
        self._waiting.append(answer)

    def has_work(self) -> bool:
        """Return True while a request is in flight."""
        return bool(self._waiting or self._batches)

    def users(self, adapter: str) -> int:
        """Return the requests in flight that use an adapter."""
        rows = [*self._waiting, *(row for batch in self._batches for row in batch.open_rows)]
        return sum(row.settings.adapter == adapter for row in rows)

    def abort(self, request_id: str) -> None:
        """Drop a request."""
        for each in [*self._waiting, *(row for batch in self._batches for row in batch.rows)]:
            if each.request_id == request_id:
                each.aborted = True
        self._waiting = deque(each for each in self._waiting if not each.aborted)
        self._drop_finished()

    def step(self) -> list[Piece]:
        """Run the model once for each batch, and for the prompts that are admitted."""
        import torch

        from raypath.components.inference.generation.batching.decoding import RunningBatch

        with torch.inference_mode():
            for batch in self._batches:
                batch.step()
            new = [RunningBatch(self._forward, admitted)] if (admitted := self._admit()) else []
            self._counts["prompt"] += sum(len(each.prompt) for each in admitted)
            rows = [row for batch in [*self._batches, *new] for row in batch.rows]
            found = [piece for row in rows if (piece := self._piece(row)) is not None]
            self._drop_finished()
            for batch in new:
                if batch.open_rows and not (self._batches and self._batches[0].join(batch)):
                    self._batches.append(batch)
        return found

    def statistics(self) -> EngineStatistics:
        """Return load and counts."""
        rows = [row for batch in list(self._batches) for row in batch.open_rows]
        used = sum(len(row.prompt) + row.limit for row in rows)
        return EngineStatistics(
            waiting=len(self._waiting),
            running=len(rows),
            prompt_tokens=self._counts["prompt"],
            generated_tokens=self._counts["generated"],
            cache_use=min(1.0, used / self._capacity) if self._capacity else 0.0,
            cache_tokens=int(self._capacity),
        )

    def _admit(self) -> list[Answer]:
        """Take requests that wait, in order, as far as slots and memory allow."""
        running = [row for batch in self._batches for row in batch.open_rows]
        if not running:
            self._capacity = self._budget()
        width = max((len(row.prompt) + row.limit for row in running), default=0)
        found: list[Answer] = []
        longest = 0
        while self._waiting and len(running) + len(found) < self._most:
            first = self._waiting[0]
            longest, width = max(longest, len(first.prompt)), max(width, len(first.prompt) + first.limit)
            if found and longest * (len(found) + 1) > PROMPT_TOKENS:
                break
            if (running or found) and width * (len(running) + len(found) + 1) > self._capacity:
                break
            found.append(self._waiting.popleft())
        return found

    def _piece(self, row: Answer) -> Piece | None:
        """Return what a row has that was not returned; None for a row that has nothing, or was aborted."""
        start, row.sent = row.sent, len(row.ids)
        if row.error is not None and not row.aborted:
            row.aborted = True  # it is reported once
            return Piece(row.request_id, error=row.error)
        if row.aborted or (start == row.sent and row.finish is None):
            return None
        self._counts["generated"] += row.sent - start
        return Piece(row.request_id, row.ids[start:], row.logprobs[start:], row.top[start:], row.finish)

    def _drop_finished(self) -> None:
        self._batches = [batch for batch in self._batches if batch.open_rows]
