"""Results of a batch prediction: a file for each chunk, in the step's scratch folder or in object storage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from raypath.components.core.context import ShardStorage
from raypath.components.core.files import write_atomically
from raypath.components.data.streaming.manifest import WrittenShard
from raypath.components.data.streaming.row_files import RowFiles, row_files, stored_files
from raypath.components.data.streaming.shard_storage import describe, is_stored, upload
from raypath.components.inference.batch.chunks import Chunk, finished_chunks, write_chunk

UPLOADED = "predicted"
"""Folder in the step's scratch for the records of uploaded results, which are copied to the store."""


@dataclass(frozen=True)
class Results:
    """Results of chunks. folder: of the files on this machine; storage: object storage to which they are uploaded."""

    folder: Path
    storage: ShardStorage | None = None

    def write(self, chunk: Chunk, table: pa.Table) -> str:
        """Write the result of a chunk; returns its description as JSON. Raises StoreError if the disk is full."""
        path = write_chunk(self.folder, chunk, table)
        if self.storage is None:
            return ""
        shard = describe(path, f"{chunk.number:05d}.parquet", table.num_rows)
        upload(self.storage, path, shard)
        return shard.model_dump_json()

    def record(self, number: int, made: str) -> None:
        """Record a result that was uploaded, perhaps by another node, from which an interrupted step resumes."""
        if made:
            self._records.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._records / f"{number:05d}.json", made)

    def finished(self) -> set[int]:
        """Return the chunks with complete results; incomplete results are deleted."""
        if self.storage is None:
            return set(finished_chunks(self.folder))
        return {number for number, shard in self._uploaded().items() if is_stored(self.storage, shard)}

    def files(self) -> RowFiles:
        """Describe the results in the order of the chunks."""
        if self.storage is not None:
            return stored_files(self.storage, [shard for _, shard in sorted(self._uploaded().items())])
        return row_files([path for _, path in sorted(finished_chunks(self.folder).items())])

    def _uploaded(self) -> dict[int, WrittenShard]:
        found = {}
        for path in self._records.glob("*.json"):
            found[int(path.stem)] = WrittenShard.model_validate_json(path.read_bytes())
        return found

    @property
    def _records(self) -> Path:
        return self.folder.with_name(UPLOADED)
