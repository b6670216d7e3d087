"""Scores of the reference by chunks of rows, in this process or in Ray tasks; an interrupted step resumes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array
from raypath.components.core.context import Context
from raypath.components.core.files import new_file
from raypath.components.data.streaming.ray_tasks import Item, run_tasks
from raypath.components.data.streaming.row_files import RowFiles, uploaded
from raypath.components.training.batches.reference_scores import SCORED_ROWS, ReferenceScores

INLINE_ROWS = 2_048
"""Below this many rows, one process with all cores finishes before other processes have loaded the model."""
TASK_ROWS = 1_024
"""Rows of a task, a multiple of SCORED_ROWS: the most work that an interruption costs each of them."""


class Chunk(NamedTuple):
    """Rows `first` to `first + rows` of a split."""

    split: str
    first: int
    rows: int

    def path(self, scratch: Path) -> Path:
        """Return the file of the chunk's scores."""
        return scratch / self.split / f"{self.first:09d}.npy"

    def kept(self, scratch: Path) -> Array | None:
        """Read the scores, float32 [rows, 2]; None if there are none that are intact."""
        try:
            found: Array = np.load(self.path(scratch), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if found.shape == (self.rows, 2) else None

    def keep(self, scratch: Path, scores: Array) -> None:
        """Write the scores."""
        path = self.path(scratch)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with new_file(path) as file:
            np.save(file, scores)


@dataclass(frozen=True)
class ChunkScorer:
    """Score a chunk; called by Ray Data. slice_rows: rows that are computed together, which determine the last bits of
    a score."""

    sources: Mapping[str, RowFiles]
    scores: ReferenceScores
    slice_rows: int

    def __call__(self, item: Item) -> tuple[str, str]:
        chunk = Chunk(**item)
        found = self.of(chunk)
        return f"{chunk.split}/{chunk.first}", base64.b64encode(found.tobytes()).decode()

    def of(self, chunk: Chunk) -> Array:
        """Compute the scores of a chunk, float32 [rows, 2]."""
        found = [self.scores.of(rows) for rows in self.tables(chunk)]
        return np.concatenate(found) if found else np.empty((0, 2), np.float32)

    def tables(self, chunk: Chunk) -> Iterator[pa.Table]:
        """Yield the rows of a chunk that are computed together, with two answers each."""
        for first in range(chunk.first, chunk.first + chunk.rows, self.slice_rows):
            count = min(self.slice_rows, chunk.first + chunk.rows - first)
            read = pa.concat_tables(self.sources[chunk.split].read(first, count))
            yield self.scores.with_second_answers(read)


def score_rows(
    ctx: Context, sources: Mapping[str, RowFiles], scores: ReferenceScores, on_rows: Callable[[int], None]
) -> Iterator[tuple[str, pa.Table, Array]]:
    """Yield split, rows with two answers each, and their scores float32 [N, 2], in the order of splits and rows.

    The rows of a split are scored before the first of them is yielded. Many rows are scored by Ray tasks of one thread,
    on any node: the scores have the same bits for any number of workers.
    """
    by_tasks = not ctx.gpus and sum(source.rows for source in sources.values()) >= INLINE_ROWS
    scorer = ChunkScorer(sources, scores, SCORED_ROWS)
    size = max(TASK_ROWS // SCORED_ROWS, 1) * SCORED_ROWS if by_tasks else SCORED_ROWS
    chunks = [
        Chunk(name, first, min(size, source.rows - first))
        for name, source in sources.items()
        for first in range(0, source.rows, size)
    ]
    left = []
    for chunk in chunks:
        if chunk.kept(ctx.scratch) is None:
            left.append(chunk)
        else:
            on_rows(chunk.rows)
    if by_tasks:
        _score_in_tasks(ctx, scorer, left, on_rows)
    for chunk in chunks:
        found = chunk.kept(ctx.scratch)
        if found is None:
            found = scorer.of(chunk)
            chunk.keep(ctx.scratch, found)
            on_rows(chunk.rows)
        done = 0
        for table in scorer.tables(chunk):
            yield chunk.split, table, found[done : done + len(table)]
            done += len(table)


def _score_in_tasks(ctx: Context, scorer: ChunkScorer, chunks: list[Chunk], on_rows: Callable[[int], None]) -> None:
    """Score chunks with Ray Data, and keep their scores on this machine."""
    sources, scores, storage = dict(scorer.sources), scorer.scores.alone(), ctx.part_storage
    if storage is not None and chunks:
        # Tasks on other nodes have neither the folder of the model nor files that are only here.
        scores = scores.stored_in(storage, ctx.scratch / ".reference")
        for name, source in sources.items():
            if not source.portable:
                sources[name] = uploaded(storage, source, ctx.scratch / ".staged" / name)
    waiting = {f"{chunk.split}/{chunk.first}": chunk for chunk in chunks}
    items: list[Item] = [chunk._asdict() for chunk in chunks]
    call = ChunkScorer(sources, scores, scorer.slice_rows)
    for name, made in run_tasks(call, items, ctx, anywhere=storage is not None):
        chunk = waiting[name]
        chunk.keep(ctx.scratch, np.frombuffer(base64.b64decode(made), np.float32).reshape(chunk.rows, 2))
        on_rows(chunk.rows)
