"""Read many files with Ray Data: a task a file writes a part with checked rows, then tasks write the dataset's files.

The parts are needed because the number of rows of a file is only known once it is read, and the files of a dataset
have a fixed number of rows. Parts are in the step's scratch folder, or in object storage where nodes share no folder:
any node then reads the files that it has, and the step's node the others. An interrupted step resumes with the
remaining parts.
"""

from __future__ import annotations

import copy
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.context import Context, ShardStorage
from raypath.components.core.files import disk_full_as_store_error, write_atomically
from raypath.components.data.file_shard import FileShard
from raypath.components.data.labels.classes import ClassCollector, SetCollector
from raypath.components.data.labels.relabel import Relabel
from raypath.components.data.streaming.manifest import WrittenShard
from raypath.components.data.streaming.parquet import TableWriter, parquet_files
from raypath.components.data.streaming.progress import ProgressReporter
from raypath.components.data.streaming.ray_tasks import Item, run_tasks
from raypath.components.data.streaming.row_files import RowFiles, row_files, stored_files
from raypath.components.data.streaming.shard_storage import describe, is_stored, upload
from raypath.components.data.streaming.shard_tasks import Output, write_outputs

PARTS = ".parts"
"""Folder in the step's scratch; hidden folders of scratch are not copied to the store."""
UPLOADED = "parts"
"""Folder in the step's scratch for the records of uploaded parts, which are copied to the store."""
ABSENT = "absent"
LabelCollector = ClassCollector | SetCollector


class Part(BaseModel):
    """Result of reading one file: rows seen and kept, the state of the label collector, and the uploaded files."""

    model_config = ConfigDict(frozen=True)

    number: int
    seen: int
    rows: int
    labels: dict[str, Any] = {}
    files: tuple[WrittenShard, ...] = ()


@dataclass(frozen=True)
class PartWriter:
    """Read one file and write its rows; called by Ray Data with the file's number.

    complete: drops incomplete rows of a table and adds the labels of the others to a collector. labels: an empty one.
    storage: object storage to which parts are uploaded.
    """

    shards: Sequence[FileShard]
    schema: pa.Schema
    complete: Callable[[pa.Table, LabelCollector | None], pa.Table]
    labels: LabelCollector | None
    folder: Path
    storage: ShardStorage | None = None

    def __call__(self, item: Item) -> tuple[str, str]:
        """Write the part `number`. With `check`, only if this node has or can fetch the file that the step found."""
        number = item["number"]
        if not item["check"] or self.storage is None:
            return "", self.write(number, self.shards[number]).model_dump_json()
        with self.shards[number].on_this_machine(self.storage.cache, self.folder) as shard:
            if shard is None:
                return ABSENT, str(number)
            return "", self.write(number, shard).model_dump_json()

    def write(self, number: int, shard: FileShard) -> Part:
        """Read a file and write its part."""
        labels, seen, target = copy.deepcopy(self.labels), 0, self.path(number)
        temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
        try:
            with disk_full_as_store_error(f"no free disk space in {self.folder}"):
                with TableWriter(temporary, self.schema) as writer:
                    for table in shard():
                        seen += table.num_rows
                        writer.write(self.complete(table, labels))
                files = tuple(self._finish(number, path) for path in parquet_files(temporary))
                if self.storage is None:
                    shutil.rmtree(target, ignore_errors=True)
                    os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        uploaded = tuple(each for each in files if each is not None)
        part = Part(number=number, seen=seen, rows=writer.rows, labels=labels.state() if labels else {}, files=uploaded)
        if self.storage is None:
            self.record(part)
        return part

    def _finish(self, number: int, path: Path) -> WrittenShard | None:
        """Upload a file of a part, or flush it to disk."""
        if self.storage is None:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            return None
        shard = describe(path, f"{number:05d}-{path.name}", pq.read_metadata(path).num_rows)
        upload(self.storage, path, shard)
        return shard

    def path(self, number: int) -> Path:
        """Folder of a part."""
        return self.folder / f"{number:05d}"

    def record(self, part: Part) -> None:
        """Record a finished part, from which an interrupted step resumes."""
        path = self._record_of(part.number)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, part.model_dump_json())

    def finished(self, number: int) -> Part | None:
        """Return a part that an earlier attempt wrote."""
        try:
            part = Part.model_validate_json(self._record_of(number).read_bytes())
        except (OSError, ValidationError):
            return None
        stored = self.storage is None or all(is_stored(self.storage, each) for each in part.files)
        return part if stored else None

    def files(self, parts: Iterable[Part]) -> RowFiles:
        """Describe the files of parts."""
        if self.storage is not None:
            return stored_files(self.storage, [each for part in parts for each in part.files])
        return row_files([path for part in parts for path in parquet_files(self.path(part.number))])

    def _record_of(self, number: int) -> Path:
        folder = self.folder if self.storage is None else self.folder.with_name(UPLOADED)
        return folder / f"{number:05d}.json"


def read_parts(
    ctx: Context,
    shards: Sequence[FileShard],
    schema: pa.Schema,
    complete: Callable[[pa.Table, LabelCollector | None], pa.Table],
    labels: LabelCollector | None,
    progress: ProgressReporter,
) -> RowFiles:
    """Write a part for each shard with Ray Data, and merge their labels into `labels`. Returns the parts in order."""
    folder = ctx.scratch / PARTS
    folder.mkdir(mode=0o700, exist_ok=True)
    writer = PartWriter(tuple(shards), schema, complete, labels, folder, ctx.part_storage)
    parts = {number: part for number in range(len(shards)) if (part := writer.finished(number)) is not None}
    for part in parts.values():
        progress.add(part.seen)
    for part in _written(ctx, writer, [number for number in range(len(shards)) if number not in parts]):
        parts[part.number] = part
        progress.add(part.seen)
    ordered = [parts[number] for number in range(len(shards))]
    if labels is not None:
        for part in ordered:
            labels.merge(part.labels)
    return writer.files(ordered)


def _written(ctx: Context, writer: PartWriter, numbers: Sequence[int]) -> Iterator[Part]:
    """Write parts on any node that has their files, then the others on the step's node; yields them as tasks end."""
    # The largest first, so that workers finish together.
    left = sorted(numbers, key=lambda number: -writer.shards[number].bytes)
    for anywhere in (True, False) if writer.storage is not None else (False,):
        chosen = [number for number in left if writer.shards[number].portable] if anywhere else left
        for state, made in run_tasks(writer, [{"number": n, "check": anywhere} for n in chosen], ctx, anywhere):
            if state != ABSENT:
                part = Part.model_validate_json(made)
                if writer.storage is not None:  # the task may have been on another node
                    writer.record(part)
                left.remove(part.number)
                yield part


def write_parts(ctx: Context, parts: RowFiles, schema: pa.Schema, changes: dict[str, str]) -> None:
    """Write the rows of all parts to `ctx.out`, with labels replaced by `changes`, and remove the parts."""
    write_outputs(ctx, {"": Output(parts, schema, Relabel(changes) if changes else None)})
    shutil.rmtree(ctx.scratch / PARTS, ignore_errors=True)
