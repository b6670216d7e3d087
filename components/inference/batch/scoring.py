"""Model outputs for all rows of a dataset, streamed; shared by evaluation and the registry's comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError
from raypath.components.data.streaming.shard_files import ShardFile, shard_files
from raypath.components.inference.batch.targets import target_reader
from raypath.components.inference.engine import Engine
from raypath.components.models.base_models import tokenizer_digest
from raypath.components.models.metadata import ModelMetadata, read_metadata

OUTPUTS = "test_outputs.npy"
"""File with the outputs of a model on the test split, float32 [N, outputs]."""
MOST_OUTPUTS = 4_000_000
"""Most numbers that are stored: 16 MB."""
ROWS = 1_024
"""Rows in memory at a time."""
Progress = Callable[[int, int], None]


def score(
    folder: Path, data: Dataset, threads: int, progress: Progress | None = None, engine: Engine | None = None
) -> tuple[Array, Array]:
    """Return the targets, [N] or [N, K], in the model's numbering, and the outputs, float32 [N, outputs].

    Uses the dataset's token ids if they come from the model's tokenizer, else tokenizes its texts. Runs in precision
    plain, whatever precision.json says. engine: of this folder, if it is loaded already.

    Raises DataError for an empty dataset, a missing column, an unknown label, or a model with non-finite outputs.
    """
    metadata = read_metadata(folder)
    columns, encode = _reader(folder, metadata, data)
    read = target_reader(metadata, data)
    engine = engine or Engine(folder, precision="plain", parallel=threads)
    targets, recorded = [], []
    done = 0
    for number, batch in enumerate(batches(data, [*read.columns, *columns])):
        targets.append(read(batch))
        recorded.append(engine.record(encode(batch), seed=number))
        done += batch.num_rows
        if progress is not None:
            progress(done, data.rows)
    if not done:
        raise DataError("the test split has no rows; wanted at least one", fix="raise split.test or give more data")
    outputs = np.concatenate(recorded)
    if not np.isfinite(outputs).all():
        raise DataError("the model answers with NaN or infinity", fix="train it again with a lower learning rate")
    return np.concatenate(targets), outputs


def read_targets(metadata: ModelMetadata, data: Dataset) -> Array:
    """Return the targets, [N] or [N, K], in the model's numbering. Raises DataError as `score` does."""
    read = target_reader(metadata, data)
    found = [read(batch) for batch in batches(data, [*read.columns])]
    if not sum(map(len, found)):
        raise DataError("the test split has no rows; wanted at least one", fix="raise split.test or give more data")
    return np.concatenate(found)


def save_outputs(folder: Path, outputs: Array) -> None:
    """Write the outputs of a model on a test split, unless there are more than MOST_OUTPUTS numbers."""
    if outputs.size <= MOST_OUTPUTS:
        np.save(folder / OUTPUTS, np.asarray(outputs, np.float32))


def load_outputs(folder: Path, shape: tuple[int, int]) -> Array | None:
    """Read the outputs that `save_outputs` wrote; None if there are none of this shape."""
    try:
        found = np.load(folder / OUTPUTS, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return found if found.shape == shape and bool(np.isfinite(found).all()) else None


def sample_rows(folder: Path, data: Dataset, most: int) -> tuple[list[list[int]], Array]:
    """Return token ids and targets of at most `most` rows, spread evenly over the dataset."""
    metadata = read_metadata(folder)
    columns, encode = _reader(folder, metadata, data)
    read = target_reader(metadata, data)
    wanted = np.unique(np.linspace(0, data.rows - 1, min(most, data.rows)).astype(np.int64))
    tokens: list[list[int]] = []
    targets = []
    start = 0
    for batch in batches(data, [*read.columns, *columns]):
        few = batch.take(wanted[(wanted >= start) & (wanted < start + batch.num_rows)] - start)
        start += batch.num_rows
        if few.num_rows:
            tokens += encode(few)
            targets.append(read(few))
    return tokens, np.concatenate(targets) if targets else np.zeros(0)


def batches(data: Dataset, columns: list[str], rows: int = ROWS) -> Iterator[Any]:
    """Iterate over record batches of these columns. Raises DataError for a missing column."""
    for shard in data_files(data):
        with shard.open() as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(
                    f"{shard.path.name} lacks the column {missing[0]}", fix="use a dataset that `read` wrote"
                )
            yield from file.iter_batches(batch_size=rows, columns=columns)


def data_files(data: Dataset) -> list[ShardFile]:
    """Return the dataset's Parquet files in order. Raises DataError if there are none."""
    files = shard_files(data.uri)
    if not files:
        raise DataError(f"{data.uri} holds no Parquet file", fix="use a dataset that `read` wrote")
    return files


def _reader(folder: Path, metadata: ModelMetadata, data: Dataset) -> tuple[list[str], Callable[[Any], list[list[int]]]]:
    """Return the columns to read, and the function that converts a batch to token ids."""
    same = data.max_length == metadata.max_length and data.form == metadata.form
    if same and data.tokenizer and data.tokenizer == tokenizer_digest(folder):
        return ["input_ids"], lambda batch: batch.column("input_ids").to_pylist()
    from raypath.components.data.rendering import Renderer
    from raypath.components.data.tokenization.tokenizer import TextTokenizer

    tokenizer, renderer = TextTokenizer(folder, metadata.max_length), Renderer(metadata.columns, metadata.form)
    return renderer.stored, lambda batch: tokenizer.encode(renderer.table(batch))
