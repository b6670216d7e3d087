"""Batch prediction in the workers: what reads texts, and what adds predictions to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.core.artifacts import Dataset
from components.core.errors import DataError
from components.core.sources import local_path, scheme
from components.data.tokens import Encoder
from components.serving.cache import cache_folder
from components.serving.engine import Engine
from components.serving.registry import resolve
from components.serving.scoring import ROWS, parquet_files
from components.tasks import load_task
from components.tasks.bases import read_card


def model_folder(source: str, tracking: str) -> Path:
    """The local folder of a model: a path, or a registered version, fetched once a machine. Raises DataError."""
    if scheme(source) == "models:/":
        return resolve(tracking, source, cache_folder())[2]
    return local_path(source)


@dataclass(frozen=True)
class TextRows:
    """One Parquet file; calling it streams its columns `text` and, where there is one, `label`."""

    path: Path
    columns: tuple[str, ...]

    def __call__(self) -> Iterator[pa.Table]:
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=ROWS, columns=list(self.columns)):
                yield pa.Table.from_batches([batch])

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size


def rows_of(data: Dataset) -> list[TextRows]:
    """The files of a dataset in order. Raises DataError without a column `text`."""
    files = parquet_files(data)
    names = pq.read_schema(files[0]).names
    if "text" not in names:
        raise DataError(f"{files[0].name} lacks the column text", fix="give a dataset that `read` made")
    columns = tuple(name for name in ("text", "label") if name in names)
    return [TextRows(path, columns) for path in files]


class Predictor:
    """Holds a model; called with pyarrow tables by Ray Data."""

    def __init__(self, source: str, tracking: str, threads: int, scores: bool, text: bool) -> None:
        folder = model_folder(source, tracking)
        self.card = read_card(folder)
        self.task = load_task(self.card)
        self.encoder = Encoder(folder, self.card.max_length)
        self.engine = Engine(folder, threads)
        self.scores, self.text = scores, text

    def __call__(self, table: pa.Table) -> pa.Table:
        """Adds the task's columns: `predicted`, where there is one `score`, and if asked for `scores`."""
        tokens = self.encoder.encode(table.column("text").to_pylist())
        answered = self.task.columns(self.task.decode(self.engine.record(tokens)))
        if not self.scores:
            answered.pop("scores", None)
        if not self.text:
            table = table.drop_columns(["text"])
        for name, column in answered.items():
            table = table.append_column(name, column)
        return table
