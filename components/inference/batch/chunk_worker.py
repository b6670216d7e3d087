"""Worker of a batch step: loads the model once and writes a result file for each chunk."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa

from raypath.components.core.errors import RaypathError
from raypath.components.core.uris import local_path, scheme
from raypath.components.inference.batch.chunks import MAX_ATTEMPTS, Chunk, TextRows, count_attempt
from raypath.components.inference.batch.results import Results
from raypath.components.models.base_models import check_inside
from raypath.components.registry.cache import cache_folder
from raypath.components.registry.client import resolve


def model_folder(source: str, tracking: str, signing: Path | None) -> Path:
    """Return the local folder of a model; a registered version is fetched once per machine. Raises DataError.

    signing: Folder of the public keys whose signatures on registered versions are trusted.
    """
    if scheme(source) == "models:/":
        return resolve(tracking, source, cache_folder(signing), signing)[2]
    folder = local_path(source)
    check_inside(folder)
    return folder


@dataclass(frozen=True)
class ChunkJob:
    """Configuration of the workers of a batch step."""

    source: str
    """Model folder or URI, as set by the user."""
    tracking: str
    signing: Path | None
    """Folder of the trusted public keys."""
    workers: int
    threads: int
    rows: TextRows
    chunks: tuple[Chunk, ...]
    results: Results
    attempts: Path
    """Folder in which attempts are counted, on each machine; another one in each attempt of the step."""


Job = TypeVar("Job", bound=ChunkJob)


class ChunkWorker(Generic[Job]):
    """Worker with a loaded model. Raises PlatformError if workers crashed too often."""

    def __init__(self, job: Job) -> None:
        if job.threads == 1:
            # One worker per core: threads of the tokenizer would compete with the other workers.
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        count_attempt(job.attempts, "model", job.workers + MAX_ATTEMPTS)
        self.job = job
        self.load(model_folder(job.source, job.tracking, job.signing))

    def __call__(self, numbers: pa.Table) -> pa.Table:
        """Run the chunks of a table of numbers. Errors are returned as rows: Ray Data keeps only their text."""
        try:
            made = [self.run(number) for number in numbers.column("chunk").to_pylist()]
            return pa.Table.from_pylist([{**row, "error": "", "what": "", "fix": ""} for row in made])
        except RaypathError as error:
            blank = {"chunk": 0, "rows": 0, "began": 0.0, "ended": 0.0, "made": ""}
            failed = {"error": type(error).__name__, "what": error.what, "fix": error.fix}
            return pa.Table.from_pylist([{**blank, **failed}])

    def run(self, number: int) -> dict[str, Any]:
        """Run a chunk and write its file; returns chunk, rows, begin and end in Unix time, and what was made."""
        chunk, began = self.job.chunks[number], time.time()
        count_attempt(self.job.attempts, f"chunk-{number}", MAX_ATTEMPTS)
        made = self.job.results.write(chunk, self.predict(self.job.rows.read(chunk)))
        return {"chunk": number, "rows": chunk.rows, "began": began, "ended": time.time(), "made": made}

    def load(self, folder: Path) -> None:
        """Load the model of a folder."""
        raise NotImplementedError

    def predict(self, table: pa.Table) -> pa.Table:
        """Return the result of rows."""
        raise NotImplementedError
