"""Worker of a batch prediction: loads the model once and predicts chunks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypath.components.core.arrays import Array
from raypath.components.data.rendering import Renderer
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.inference.batch.chunk_worker import ChunkJob, ChunkWorker
from raypath.components.inference.engine import Engine
from raypath.components.models.metadata import read_metadata
from raypath.components.privacy.keys import key_folder
from raypath.components.privacy.redactor import redactor_of
from raypath.components.privacy.rows import RedactRows, redactable
from raypath.components.tasks.catalog import check_task, load_task


@dataclass(frozen=True)
class PredictionJob(ChunkJob):
    """Configuration of the workers of a batch prediction."""

    tasks: tuple[str, ...]
    """Tasks that the model may name in addition to the built-in ones."""
    scores: bool
    text: bool


class Predictor(ChunkWorker[PredictionJob]):
    """Worker with a loaded model."""

    def load(self, folder: Path) -> None:
        """Load the model, its task and its tokenizer."""
        metadata = read_metadata(folder)
        check_task(metadata, self.job.tasks)
        self.task = load_task(metadata)
        self.tokenizer = TextTokenizer(folder, metadata.max_length)
        self.renderer = Renderer(metadata.columns, metadata.form)
        redactor = redactor_of(metadata.redaction, key_folder(self.job.signing))
        self.redact = RedactRows(redactor, redactable(metadata.columns)) if redactor else None
        self.engine = Engine(folder, parallel=self.job.threads)

    def predict(self, table: pa.Table) -> pa.Table:
        """Add the task's columns: `predicted`, `score` and, if enabled, `scores`.

        Texts are redacted, also in the output, if those of the training data were.
        """
        if self.redact is not None:
            table = self.redact(table).select(table.column_names)
        tokens = self.tokenizer.encode(self.renderer.table(table))
        columns = self.task.columns(self.task.decode(_infer_unique(self.engine, tokens)))
        if not self.job.scores:
            columns.pop("scores", None)
        if not self.job.text:
            table = table.drop_columns(self.renderer.stored)
        for name, column in columns.items():
            table = table.append_column(name, column)
        return table


def _infer_unique(engine: Engine, tokens: Sequence[Sequence[int]]) -> Array:
    """Return the outputs of each row, float32 [B, outputs]; identical rows are computed once."""
    known: dict[tuple[int, ...], int] = {}
    places = [known.setdefault(tuple(row), len(known)) for row in tokens]
    return np.asarray(engine.record(list(known))[places])
