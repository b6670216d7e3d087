"""Leave rows out of a training part that a part kept for measuring also has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raypath.components.core.artifacts import Dataset


def drop_overlap(train: Dataset, held: tuple[Dataset, ...], folder: Path) -> Dataset:
    """`train` without the rows whose tokens are those of a row of `held`, as a new Dataset in `folder`.

    All are preprocessed Datasets. `train` itself where no such row is; of its columns `input_ids` is kept else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = {name for part in held for column in _tokens(part) for name in _names(column)}
    folder.mkdir(parents=True, exist_ok=True)
    kept = 0
    with pq.ParquetWriter(folder / "part-0.parquet", pa.schema([("input_ids", pa.list_(pa.int32()))])) as writer:
        for column in _tokens(train):
            new = pa.array([name not in known for name in _names(column)], pa.bool_())
            writer.write_table(pa.table({"input_ids": column.filter(new)}))
            kept += new.true_count
    return train.model_copy(update={"uri": str(folder), "rows": kept}) if kept < train.rows else train


def _tokens(part: Dataset) -> Iterator[Any]:
    """The token ids of a part, some rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in sorted(Path(part.uri).glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["input_ids"]):
                yield batch.column(0).cast(pa.list_(pa.int32()))


def _names(column: Any) -> Iterator[bytes]:
    """16 bytes for each row, the same for the same tokens."""
    flat, ends = column.flatten().to_numpy(zero_copy_only=False), column.value_lengths().to_numpy(zero_copy_only=False)
    start = 0
    for length in ends:
        yield hashlib.blake2b(flat[start : start + length].tobytes(), digest_size=16).digest()
        start += length
