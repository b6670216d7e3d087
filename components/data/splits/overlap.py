"""Drop rows from a training split that also occur in a held-out split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raypath.components.core.artifacts import Dataset


def drop_overlap(train: Dataset, held_out: tuple[Dataset, ...], folder: Path) -> Dataset:
    """Write the rows of `train` whose tokens equal no row of `held_out` to `folder`, with the column `input_ids` only.

    All are preprocessed Datasets. Returns `train` itself if no row was dropped.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = {digest for split in held_out for column in _tokens(split) for digest in _digests(column)}
    folder.mkdir(parents=True, exist_ok=True)
    kept = 0
    with pq.ParquetWriter(folder / "part-0.parquet", pa.schema([("input_ids", pa.list_(pa.int32()))])) as writer:
        for column in _tokens(train):
            new = pa.array([digest not in known for digest in _digests(column)], pa.bool_())
            writer.write_table(pa.table({"input_ids": column.filter(new)}))
            kept += new.true_count
    return train.model_copy(update={"uri": str(folder), "rows": kept}) if kept < train.rows else train


def _tokens(split: Dataset) -> Iterator[Any]:
    """Yield the token ids of a split in batches."""
    import pyarrow as pa

    from raypath.components.data.streaming.shard_files import shard_files

    for shard in shard_files(split.uri):
        with shard.open() as file:
            for batch in file.iter_batches(columns=["input_ids"]):
                yield batch.column(0).cast(pa.list_(pa.int32()))


def _digests(column: Any) -> Iterator[bytes]:
    """Yield a 16-byte digest of the tokens of each row."""
    flat, lengths = (
        column.flatten().to_numpy(zero_copy_only=False),
        column.value_lengths().to_numpy(zero_copy_only=False),
    )
    start = 0
    for length in lengths:
        yield hashlib.blake2b(flat[start : start + length].tobytes(), digest_size=16).digest()
        start += length
