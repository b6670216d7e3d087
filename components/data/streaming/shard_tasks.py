"""Write a dataset with Ray Data: each task writes whole files, with their digests, so that no row passes through the
step's process.

A file has the rows, the row groups and the bytes that TableWriter gives it in one process, whatever the number of
workers and the division of the source. Finished files are kept in the step's scratch folder, or uploaded where the
store is object storage, each with a JSON file that is written last: an interrupted step resumes with the remaining
files.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.context import Context, ShardStorage
from raypath.components.core.errors import numbered
from raypath.components.core.files import disk_full_as_store_error, file_digest, write_atomically
from raypath.components.data.streaming import parquet
from raypath.components.data.streaming.manifest import Manifest, WrittenShard
from raypath.components.data.streaming.ray_tasks import Item, run_tasks
from raypath.components.data.streaming.row_files import RowFiles
from raypath.components.data.streaming.shard_storage import Origin, describe, is_stored, upload
from raypath.components.data.streaming.stream import BATCH_ROWS, Transform

STAGING = ".shards"
"""Folder in the step's scratch for finished files; hidden folders of scratch are not copied to the store."""
UPLOADED = "uploaded"
"""Folder in the step's scratch for the records of uploaded files."""


@dataclass(frozen=True)
class Output:
    """One dataset to write. counted: a boolean column of the transformed rows that is counted and not stored.

    tallied: a column of lists of texts, each of which is counted by its value, and that is not stored.
    """

    source: RowFiles
    schema: pa.Schema
    transform: Transform | None = None
    counted: str = ""
    tallied: str = ""
    keep: np.ndarray[Any, Any] | None = field(default=None, compare=False)
    """Rows of the source to write, bool [N]; None for all."""


@dataclass(frozen=True)
class ShardWriter:
    """Write one file of an output; called by Ray Data with the output's name, the file's number and its range of rows.

    outputs: without `keep`, which is passed for each file. storage: object storage to which files are uploaded.
    """

    outputs: Mapping[str, Output]
    staging: Path
    storage: ShardStorage | None = None

    def __call__(self, item: Item) -> tuple[str, str]:
        return item["output"], self.write(**item).model_dump_json()

    def write(self, output: str, number: int, first: int, rows: int, keep: bytes) -> WrittenShard:
        """Write a file with the rows from `first` on that `keep` (packed bits) selects, "" for all."""
        target = self.staging / output / f"{number:05d}.parquet"
        temporary = target.with_name(f".{target.stem}-{uuid.uuid4().hex[:8]}")
        mask = np.unpackbits(np.frombuffer(keep, np.uint8), count=rows).astype(bool) if keep else None
        try:
            with disk_full_as_store_error(f"no free disk space in {self.staging}"):
                counted, written, tally = self._fill(temporary, output, first, rows, mask)
                made = temporary / "00000.parquet"
                with open(made, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(made, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shard = describe(target, target.name, written, counted, tally=tuple(sorted(tally.items())))
        if self.storage is None:
            self.record(output, shard)
        else:
            upload(self.storage, target, shard)
        return shard

    def _fill(self, folder: Path, name: str, first: int, rows: int, mask: Any) -> tuple[int, int, Counter[str]]:
        output, counted, done = self.outputs[name], 0, 0
        tally: Counter[str] = Counter()
        with parquet.TableWriter(folder, output.schema) as writer:
            for group in output.source.read(first, rows):
                table = group if mask is None else group.filter(pa.array(mask[done : done + len(group)]))
                for start in range(0, len(table), BATCH_ROWS):
                    batch = table.slice(start, BATCH_ROWS)
                    with numbered(name, first + done + start):
                        made = batch if output.transform is None else output.transform(batch)
                    counted += (pc.sum(made[output.counted]).as_py() or 0) if output.counted else 0
                    if output.tallied:
                        tally.update(pc.list_flatten(made[output.tallied]).to_pylist())
                    writer.write(made)
                done += len(group)
        return counted, writer.rows, tally

    def record(self, output: str, shard: WrittenShard) -> None:
        """Record a finished file, from which an interrupted step resumes."""
        path = self._record_of(output, shard.name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, shard.model_dump_json())

    def finished(self, output: str, number: int) -> WrittenShard | None:
        """Return a file that an earlier attempt wrote, if it is intact."""
        name = f"{number:05d}.parquet"
        try:
            shard = WrittenShard.model_validate_json(self._record_of(output, name).read_bytes())
            if self.storage is not None:
                return shard if is_stored(self.storage, shard) else None
            return shard if file_digest(self.staging / output / name) == shard.sha256 else None
        except (OSError, ValueError):
            return None

    def _record_of(self, output: str, name: str) -> Path:
        # Records of uploaded files are copied to the store with the rest of scratch, for an attempt on another node.
        folder = self.staging if self.storage is None else self.staging.with_name(UPLOADED)
        return (folder / output / name).with_suffix(".json")


def write_shards(
    ctx: Context, outputs: Mapping[str, Output], on_rows: Callable[[int], None] = lambda rows: None
) -> dict[str, list[WrittenShard]]:
    """Write the files of all outputs to the scratch folder, or object storage; `publish` makes them a dataset.

    Returns the files of each output in row order. Raises a RaypathError of a task with its own type, and Unavailable if
    workers crash.
    """
    bare = {name: replace(each, keep=None) for name, each in outputs.items()}
    writer = ShardWriter(bare, ctx.scratch / STAGING, ctx.storage)
    portable = ctx.storage is not None and all(each.source.portable for each in outputs.values())
    found: dict[tuple[str, int], WrittenShard] = {}
    left = []
    for name, output in outputs.items():
        (writer.staging / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        for item in _items(name, output):
            shard = writer.finished(name, item["number"])
            if shard is None:
                left.append(item)
            else:
                found[name, item["number"]] = shard
                on_rows(shard.rows)
    # The largest first, so that workers finish together.
    left.sort(key=lambda item: -int(item["rows"]))
    for name, made in run_tasks(writer, left, ctx, anywhere=portable):
        shard = WrittenShard.model_validate_json(made)
        if ctx.storage is not None:  # the task may have been on another node
            writer.record(name, shard)
        found[name, int(Path(shard.name).stem)] = shard
        on_rows(shard.rows)
    return {name: [found[key] for key in sorted(found) if key[0] == name] for name in outputs}


def write_outputs(
    ctx: Context, outputs: Mapping[str, Output], on_rows: Callable[[int], None] = lambda rows: None
) -> dict[str, list[WrittenShard]]:
    """Write each output to the folder of its name below `ctx.out`."""
    written = write_shards(ctx, outputs, on_rows)
    for name, shards in written.items():
        publish(ctx, shards, ctx.scratch / STAGING / name, ctx.out / name)
    return written


def publish(ctx: Context, shards: Sequence[WrittenShard], staging: Path, folder: Path, prefix: str = "") -> None:
    """Move files to the folder of a dataset, unless they were uploaded, and write its manifest.

    prefix: of the files' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = [shard.model_copy(update={"name": prefix + shard.name, "counted": 0}) for shard in shards]
    if ctx.storage is not None:
        Origin.of(ctx.storage).write(folder)
    else:
        for shard, new in zip(shards, named, strict=True):
            shutil.move(staging / shard.name, folder / new.name)
    Manifest(shards=tuple(named)).write(folder)


def _items(name: str, output: Output) -> Iterator[Item]:
    """Yield the range of source rows of each file; an empty dataset is one file without rows."""
    total, step = output.source.rows, parquet.FILE_ROWS
    if output.keep is None:
        for number, first in enumerate(range(0, max(total, 1), step)):
            yield _item(name, number, first, min(step, total - first), b"")
        return
    kept = np.flatnonzero(output.keep)
    for number, start in enumerate(range(0, max(len(kept), 1), step)):
        rows = kept[start : start + step]
        first, end = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        yield _item(name, number, first, end - first, np.packbits(output.keep[first:end]).tobytes())


def _item(name: str, number: int, first: int, rows: int, keep: bytes) -> Item:
    return {"output": name, "number": number, "first": first, "rows": rows, "keep": keep}
