"""Batch prediction in the workers: each holds the model, and makes a finished file of every part that it is given."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array
from raypath.components.core.errors import RaypathError
from raypath.components.core.uris import local_path, scheme
from raypath.components.data.tokenizer import TextTokenizer
from raypath.components.inference.batch.chunks import TRIES, Chunk, TextRows, begin, save
from raypath.components.inference.engine import Engine
from raypath.components.models.metadata import read_metadata
from raypath.components.registry.cache import cache_folder
from raypath.components.registry.client import resolve
from raypath.components.tasks.catalog import load_task


def model_folder(source: str, tracking: str) -> Path:
    """The local folder of a model: a path, or a registered version, fetched once a machine. Raises DataError."""
    if scheme(source) == "models:/":
        return resolve(tracking, source, cache_folder())[2]
    return local_path(source)


@dataclass(frozen=True)
class PredictionJob:
    """What a worker is to do, the same for all of them."""

    source: str
    """The model, as the user wrote it."""
    tracking: str
    workers: int
    threads: int
    scores: bool
    text: bool
    rows: TextRows
    parts: tuple[Chunk, ...]
    out: Path
    """Folder of the finished parts."""


class Predictor:
    """Holds a model. Raises PlatformError when workers died too often before it."""

    def __init__(self, job: PredictionJob) -> None:
        if job.threads == 1:
            # One worker a core: a tokenizer with threads of its own would disturb its neighbours.
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        begin(job.out, "model", job.workers + TRIES)
        folder = model_folder(job.source, job.tracking)
        metadata = read_metadata(folder)
        self.job = job
        self.task = load_task(metadata)
        self.tokenizer = TextTokenizer(folder, metadata.max_length)
        self.engine = Engine(folder, job.threads)

    def __call__(self, numbers: pa.Table) -> pa.Table:
        """Predict the parts of a table of part numbers. Errors are returned as rows: Ray Data keeps only their text."""
        try:
            made = [self.make(number) for number in numbers.column("part").to_pylist()]
            return pa.Table.from_pylist([{**row, "error": "", "what": "", "fix": ""} for row in made])
        except RaypathError as error:
            blank = {"part": 0, "rows": 0, "began": 0.0, "ended": 0.0}
            failed = {"error": type(error).__name__, "what": error.what, "fix": error.fix}
            return pa.Table.from_pylist([{**blank, **failed}])

    def make(self, number: int) -> dict[str, Any]:
        """Predict a part and write its file: part, rows, and when the work began and ended, in Unix time."""
        part, began = self.job.parts[number], time.time()
        begin(self.job.out, f"part-{number}", TRIES)
        save(self.job.out, part, self.predict(self.job.rows.read(part)))
        return {"part": number, "rows": part.rows, "began": began, "ended": time.time()}

    def predict(self, table: pa.Table) -> pa.Table:
        """Adds the task's columns: `predicted`, where there is one `score`, and if asked for `scores`."""
        tokens = self.tokenizer.encode(table.column("text").to_pylist())
        answered = self.task.columns(self.task.decode(_once(self.engine, tokens)))
        if not self.job.scores:
            answered.pop("scores", None)
        if not self.job.text:
            table = table.drop_columns(["text"])
        for name, column in answered.items():
            table = table.append_column(name, column)
        return table


def _once(engine: Engine, tokens: Sequence[Sequence[int]]) -> Array:
    """What the task records of each row, float32 [B, outputs]; rows that are the same are computed once."""
    known: dict[tuple[int, ...], int] = {}
    places = [known.setdefault(tuple(row), len(known)) for row in tokens]
    return np.asarray(engine.record(list(known))[places])
