"""Write a dataset with Ray Data: each task writes whole files, with their digests, so that no row passes through the
step's process.

A file has the rows, the row groups and the bytes that TableWriter gives it in one process, whatever the number of
workers and the division of the source. Finished files are kept in the step's scratch folder, each with a JSON file that
is written last: an interrupted step resumes with the remaining files.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.context import Context
from raypath.components.core.errors import RaypathError, StoreError, Unavailable, kinds
from raypath.components.core.files import file_digest, is_disk_full, write_atomically
from raypath.components.data.streaming import parquet
from raypath.components.data.streaming.manifest import Manifest, WrittenShard
from raypath.components.data.streaming.ray_errors import unwrap, worker_died
from raypath.components.data.streaming.row_files import RowFiles
from raypath.components.data.streaming.stream import BATCH_ROWS, Transform, ray_data_settings

Item = dict[str, Any]
RESULT = pa.schema({"name": pa.string(), "made": pa.string(), "error": pa.string()})
STAGING = ".shards"
"""Folder in the step's scratch for finished files; hidden folders of scratch are not copied to the store."""


@dataclass(frozen=True)
class Output:
    """One dataset to write. counted: a boolean column of the transformed rows that is counted and not stored."""

    source: RowFiles
    schema: pa.Schema
    transform: Transform | None = None
    counted: str = ""
    keep: np.ndarray[Any, Any] | None = field(default=None, compare=False)
    """Rows of the source to write, bool [N]; None for all."""


@dataclass(frozen=True)
class ShardWriter:
    """Write one file of an output; called by Ray Data with the output's name, the file's number and its range of rows.

    outputs: without `keep`, which is passed for each file.
    """

    outputs: Mapping[str, Output]
    staging: Path

    def __call__(self, item: Item) -> tuple[str, str]:
        return item["output"], self.write(**item).model_dump_json()

    def write(self, output: str, number: int, first: int, rows: int, keep: bytes) -> WrittenShard:
        """Write a file with the rows from `first` on that `keep` (packed bits) selects, "" for all."""
        target = self.staging / output / f"{number:05d}.parquet"
        temporary = target.with_name(f".{target.stem}-{uuid.uuid4().hex[:8]}")
        mask = np.unpackbits(np.frombuffer(keep, np.uint8), count=rows).astype(bool) if keep else None
        try:
            counted, written = self._fill(temporary, self.outputs[output], first, rows, mask)
            made = temporary / "00000.parquet"
            with open(made, "rb") as file:
                os.fsync(file.fileno())
            os.replace(made, target)
        except OSError as error:
            if is_disk_full(error):
                raise StoreError(
                    f"no free disk space in {self.staging}", fix="free disk space, then run the same command again"
                ) from None
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        size, digest = target.stat().st_size, file_digest(target)
        shard = WrittenShard(name=target.name, rows=written, bytes=size, sha256=digest, counted=counted)
        write_atomically(target.with_suffix(".json"), shard.model_dump_json())
        return shard

    def _fill(self, folder: Path, output: Output, first: int, rows: int, mask: Any) -> tuple[int, int]:
        counted = done = 0
        with parquet.TableWriter(folder, output.schema) as writer:
            for group in output.source.read(first, rows):
                table = group if mask is None else group.filter(pa.array(mask[done : done + len(group)]))
                done += len(group)
                for start in range(0, len(table), BATCH_ROWS):
                    batch = table.slice(start, BATCH_ROWS)
                    made = batch if output.transform is None else output.transform(batch)
                    counted += (pc.sum(made[output.counted]).as_py() or 0) if output.counted else 0
                    writer.write(made)
        return counted, writer.rows

    def finished(self, output: str, number: int) -> WrittenShard | None:
        """Return a file that an earlier attempt wrote, if it is intact."""
        path = self.staging / output / f"{number:05d}.parquet"
        try:
            shard = WrittenShard.model_validate_json(path.with_suffix(".json").read_bytes())
            return shard if file_digest(path) == shard.sha256 else None
        except (OSError, ValueError):
            return None


def write_shards(
    outputs: Mapping[str, Output], scratch: Path, workers: int, on_rows: Callable[[int], None] = lambda rows: None
) -> dict[str, list[WrittenShard]]:
    """Write the files of all outputs to the scratch folder with at most `workers` cores; `publish` moves them.

    Returns the files of each output in row order. Raises a RaypathError of a task with its own type, and Unavailable if
    workers crash.
    """
    bare = {name: Output(each.source, each.schema, each.transform, each.counted) for name, each in outputs.items()}
    writer = ShardWriter(bare, scratch / STAGING)
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
    for name, made in run_tasks(writer, sorted(left, key=lambda item: -int(item["rows"])), workers):
        shard = WrittenShard.model_validate_json(made)
        found[name, int(Path(shard.name).stem)] = shard
        on_rows(shard.rows)
    return {name: [found[key] for key in sorted(found) if key[0] == name] for name in outputs}


def write_outputs(
    ctx: Context, outputs: Mapping[str, Output], on_rows: Callable[[int], None] = lambda rows: None
) -> dict[str, list[WrittenShard]]:
    """Write each output to the folder of its name below `ctx.out`."""
    written = write_shards(outputs, ctx.scratch, ctx.workers, on_rows)
    for name, shards in written.items():
        publish(shards, ctx.scratch / STAGING / name, ctx.out / name)
    return written


def publish(shards: Sequence[WrittenShard], staging: Path, folder: Path, prefix: str = "") -> None:
    """Move files to the folder of a dataset and write its manifest. prefix: of the files' names."""
    folder.mkdir(parents=True, exist_ok=True)
    named = [shard.model_copy(update={"name": prefix + shard.name, "counted": 0}) for shard in shards]
    for shard, new in zip(shards, named, strict=True):
        shutil.move(staging / shard.name, folder / new.name)
    Manifest(shards=tuple(named)).write(folder)


@dataclass(frozen=True)
class _Task:
    """Map function of Ray Data. A RaypathError is returned, since Ray keeps only the text of an error in a function."""

    call: Callable[[Item], tuple[str, str]]

    def __call__(self, items: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._line(item) for item in items.to_pylist()], RESULT)

    def _line(self, item: Item) -> dict[str, str]:
        try:
            name, made = self.call(item)
            return {"name": name, "made": made, "error": ""}
        except RaypathError as error:
            return {"name": error.what, "made": error.fix, "error": type(error).__name__}


def run_tasks(call: Callable[[Item], tuple[str, str]], items: list[Item], workers: int) -> Iterator[tuple[str, str]]:
    """Call a picklable object with each item in a task of Ray Data; yield what it returns as tasks end."""
    import ray.data
    import ray.exceptions

    if not items:
        return
    with ray_data_settings(workers, ordered=False):
        try:
            lines = ray.data.from_items(items, override_num_blocks=len(items))
            done = lines.map_batches(_Task(call), batch_format="pyarrow", batch_size=1)
            for table in done.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=0):
                for line in table.to_pylist():
                    if line["error"]:
                        raise kinds().get(line["error"], RaypathError)(line["name"], fix=line["made"])
                    yield line["name"], line["made"]
        except RaypathError:
            raise
        except (ray.exceptions.RayError, RuntimeError) as error:
            cause = unwrap(error)
            if worker_died(error) and not isinstance(cause, RaypathError):
                raise Unavailable("the workers that write rows crashed", fix="run the same command again") from None
            raise cause from None


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
