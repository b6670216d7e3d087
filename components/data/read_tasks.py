"""Read many files with Ray Data: a task a file writes a part with checked rows, then tasks write the dataset's files.

The parts are needed because the number of rows of a file is only known once it is read, and the files of a dataset
have a fixed number of rows. Parts are in the step's scratch folder; an interrupted step resumes with the remaining
ones.
"""

from __future__ import annotations

import copy
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.context import Context
from raypath.components.core.errors import StoreError
from raypath.components.core.files import is_disk_full, write_atomically
from raypath.components.data.labels.classes import ClassCollector, SetCollector
from raypath.components.data.labels.relabel import Relabel
from raypath.components.data.streaming.parquet import TableWriter, parquet_files
from raypath.components.data.streaming.progress import ProgressReporter
from raypath.components.data.streaming.ray_tasks import run_tasks
from raypath.components.data.streaming.row_files import RowFiles, row_files
from raypath.components.data.streaming.shard import Shard
from raypath.components.data.streaming.shard_tasks import Output, write_outputs

PARTS = ".parts"
"""Folder in the step's scratch; hidden folders of scratch are not copied to the store."""
LabelCollector = ClassCollector | SetCollector


class Part(BaseModel):
    """Result of reading one file: rows seen and kept, and the state of the label collector."""

    model_config = ConfigDict(frozen=True)

    number: int
    seen: int
    rows: int
    labels: dict[str, Any] = {}


@dataclass(frozen=True)
class PartWriter:
    """Read one file and write its rows; called by Ray Data with the file's number.

    complete: drops incomplete rows of a table and adds the labels of the others to a collector. labels: an empty one.
    """

    shards: Sequence[Shard]
    schema: pa.Schema
    complete: Callable[[pa.Table, LabelCollector | None], pa.Table]
    labels: LabelCollector | None
    folder: Path

    def __call__(self, item: dict[str, int]) -> tuple[str, str]:
        return "", self.write(item["number"]).model_dump_json()

    def write(self, number: int) -> Part:
        """Read a file and write its part."""
        labels, seen, target = copy.deepcopy(self.labels), 0, self.path(number)
        temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
        try:
            with TableWriter(temporary, self.schema) as writer:
                for table in self.shards[number]():
                    seen += table.num_rows
                    writer.write(self.complete(table, labels))
            for path in parquet_files(temporary):
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
        except OSError as error:
            if is_disk_full(error):
                fix = "free disk space, then run the same command again"
                raise StoreError(f"no free disk space in {self.folder}", fix=fix) from None
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        part = Part(number=number, seen=seen, rows=writer.rows, labels=labels.state() if labels else {})
        write_atomically(target.with_suffix(".json"), part.model_dump_json())
        return part

    def path(self, number: int) -> Path:
        """Folder of a part."""
        return self.folder / f"{number:05d}"

    def finished(self, number: int) -> Part | None:
        """Return a part that an earlier attempt wrote."""
        try:
            return Part.model_validate_json(self.path(number).with_suffix(".json").read_bytes())
        except (OSError, ValidationError):
            return None


def read_parts(
    ctx: Context,
    shards: Sequence[Shard],
    schema: pa.Schema,
    complete: Callable[[pa.Table, LabelCollector | None], pa.Table],
    labels: LabelCollector | None,
    progress: ProgressReporter,
) -> RowFiles:
    """Write a part for each shard with Ray Data, and merge their labels into `labels`. Returns the parts in order."""
    folder = ctx.scratch / PARTS
    folder.mkdir(mode=0o700, exist_ok=True)
    writer = PartWriter(tuple(shards), schema, complete, labels, folder)
    found = {number: writer.finished(number) for number in range(len(shards))}
    left = [{"number": number} for number, part in found.items() if part is None]
    # The largest first, so that workers finish together.
    left.sort(key=lambda item: -shards[item["number"]].bytes)
    for part in found.values():
        progress.add(part.seen if part else 0)
    for _, made in run_tasks(writer, left, ctx):
        part = Part.model_validate_json(made)
        found[part.number] = part
        progress.add(part.seen)
    for part in found.values():
        if part is not None and labels is not None:
            labels.merge(part.labels)
    return row_files([path for number in found for path in parquet_files(writer.path(number))])


def write_parts(ctx: Context, parts: RowFiles, schema: pa.Schema, changes: dict[str, str]) -> None:
    """Write the rows of all parts to `ctx.out`, with labels replaced by `changes`, and remove the parts."""
    write_outputs(ctx, {"": Output(parts, schema, Relabel(changes) if changes else None)})
    shutil.rmtree(ctx.scratch / PARTS, ignore_errors=True)
