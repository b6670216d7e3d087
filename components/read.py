"""Read the user's rows: files, folders, globs, objects, package data or a sample, with their labels checked.

Nothing is guessed from the first rows: every row is looked at, and what is wrong is named by file and row.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from raypath.components.core.artifacts import Dataset
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.params import Params, Source

if TYPE_CHECKING:
    from raypath.components.data.columns.labels import Labels, Sets
    from raypath.components.data.columns.schema import Columns
    from raypath.components.data.file_shard import FileShard
    from raypath.components.data.sources.files import DataFile


COPIES = ".objects"
"""Folder in a step's scratch; a hidden one does not go to the store with it."""


class ReadParams(Params):
    """Where the rows are and how the columns are called."""

    uri: Source = "sample://reviews"
    """A file, a folder, a glob, or one of these in a bucket (s3://BUCKET/KEY), package://PACKAGE/PATH or sample:// with
    reviews, movies or tweets; csv, tsv, jsonl (each also .gz), parquet. In a folder, files named train..., valid... and
    test... are taken as these parts."""
    text: str = "text"
    """Name of the column that holds the text."""
    label: str | None = "label"
    """Name of the column that holds the class, the set of classes or the number; several columns of numbers with
    commas between; none for rows without labels."""
    kind: Literal["class", "set", "number"] = "class"
    """What a label is: one class a row, a set of classes (which may be empty), or numbers to predict."""
    separator: str = "|"
    """What stands between the classes of a set in a cell of text; a cell that starts with [ is read as a JSON list,
    and an empty one as the empty set."""
    valid: Source | None = None
    """Files whose rows are the validation part, written as `uri`."""
    test: Source | None = None
    """Files whose rows are the test part, written as `uri`."""
    split: str | None = "split"
    """Name of a column that says train, valid or test; used where there is one."""
    group: str | None = None
    """Name of a column: rows with the same value stay in one part (one author, one customer)."""
    nulls: Literal["error", "drop"] = "error"
    """What to do with a row without text or label: stop, or leave it out."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if not all(self.labels):
            raise ValueError("label has a comma without a name beside it")
        if not self.separator:
            raise ValueError("separator is empty")
        names = [name for name in (self.text, *self.labels, self.group) if name]
        if len(set(names)) < len(names):
            raise ValueError("text, label and group name the same column twice")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns; several for numbers alone, since a comma may be part of a name."""
        if not self.label:
            return ()
        return tuple(name.strip() for name in self.label.split(",")) if self.kind == "number" else (self.label,)


@component(version=1)
def read(ctx: Context, params: ReadParams) -> Dataset:
    """The rows in the order of the files, as columns text, label, and part and group where known.

    Classes become strings, white space around them cut: 3 and 3.0 -> "3", true -> "true"; `label_kind` says what they
    were. Sets become list<string>, each class once; numbers list<float64> in the order of `labels`, the columns' names.
    Raises DataError for files, columns, texts and labels that cannot be used.
    """
    from raypath.components.data.streaming.parquet import TableWriter
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.stream import stream_tables

    shards = _shards(ctx, params)
    labels, progress = _collector(params), ProgressReporter(ctx)
    with TableWriter(ctx.out, _schema(shards)) as writer, closing(stream_tables(shards, ctx.workers)) as tables:
        for table in tables:
            progress.add(table.num_rows)
            writer.write(_checked(table, labels))
    progress.end()
    _say(ctx, params, progress.done, writer.rows)
    shutil.rmtree(ctx.scratch / COPIES, ignore_errors=True)
    made = Dataset(rows=writer.rows, label_kind="none", source=params.uri, presplit=shards[0].has_split)
    return made.model_copy(update=_label_facts(ctx, params, labels))


def _collector(params: ReadParams) -> Labels | Sets | None:
    """What notes the labels as they come; None where nothing need be known of them."""
    from raypath.components.data.columns.labels import Labels, Sets

    if not params.label or params.kind == "number":
        return None
    return Sets(params.label) if params.kind == "set" else Labels(params.label)


def _label_facts(ctx: Context, params: ReadParams, labels: Labels | Sets | None) -> dict[str, Any]:
    """What a Dataset says of its labels."""
    from raypath.components.data.columns.labels import Sets

    if labels is None:
        return {"label_kind": "number", "labels": params.labels} if params.label else {}
    if isinstance(labels, Sets):
        if labels.empty:
            ctx.log.warning("%s rows have no class at all: their set is empty", f"{labels.empty:,}")
        return {"label_kind": "set"}
    return {"label_kind": _settle(ctx, labels)}


def _checked(table: Any, labels: Labels | Sets | None) -> Any:
    """The complete rows of a table, their labels noted."""
    if table["text"].null_count:
        table = table.filter(table["text"].is_valid())
    if labels is not None:
        labels.add(table)
    return table


def _settle(ctx: Context, labels: Labels) -> str:
    """The kind of the labels; rewrites the files when labels are kept in another form than they were read."""
    from raypath.components.data.columns.relabel import relabel

    kind, changes = labels.settle()
    if changes:
        relabel(ctx.out, changes)
    return kind


def _say(ctx: Context, params: ReadParams, seen: int, kept: int) -> None:
    if kept == 0:
        raise DataError(f"{params.uri} holds no rows", fix="correct read.uri")
    if seen > kept:
        ctx.log.warning("left out %s rows without text or label", f"{seen - kept:,}")


def _schema(shards: list[FileShard]) -> Any:
    import pyarrow as pa

    columns = shards[0].columns
    label = {"set": pa.list_(pa.string()), "number": pa.list_(pa.float64())}.get(columns.kind, pa.string())
    fields = [("text", pa.string())]
    fields += [("label", label)] if columns.labels else []
    fields += [("group", pa.string())] if columns.group else []
    fields += [("part", pa.string())] if shards[0].has_split else []
    return pa.schema(fields)


def _shards(ctx: Context, params: ReadParams) -> list[FileShard]:
    """One shard a file, all with the same columns. Raises DataError when a column is missing."""
    from raypath.components.data.columns.schema import Columns
    from raypath.components.data.file_shard import FileShard
    from raypath.components.data.sources.files import find

    files = find(params.uri, ctx.log, ctx.scratch / COPIES)
    if params.valid or params.test:
        files = list(_apart(ctx, params, files))
    by_name = any(file.part for file in files)
    taken = (params.text, *params.labels, params.group)
    part = "" if by_name or params.split in taken else params.split or ""
    wanted = Columns(params.text, params.labels, part, params.group or "", params.kind, params.separator)
    columns = _present(files, wanted)
    has_split = by_name or bool(columns.part)
    return [FileShard(file, columns, has_split, params.nulls == "drop") for file in files]


def _apart(ctx: Context, params: ReadParams, train: list[DataFile]) -> Iterator[DataFile]:
    """The files of `uri` as train, and those of `valid` and `test` as their parts."""
    from dataclasses import replace

    from raypath.components.data.sources.files import find

    yield from (replace(file, part="train") for file in train)
    for part, uri in (("valid", params.valid), ("test", params.test)):
        if uri:
            yield from (replace(file, part=part) for file in find(uri, ctx.log, ctx.scratch / COPIES))


def _present(files: list[DataFile], wanted: Columns) -> Columns:
    """The wanted columns, without the one for the part when no file has it."""
    from dataclasses import replace

    from raypath.components.data.formats.readers import columns_in

    found = {file: columns_in(file) for file in files}
    if wanted.part and not any(wanted.part in names for names in found.values()):
        wanted = replace(wanted, part="")
    for file, names in found.items():
        for ours, name in wanted.wanted().items():
            if names.count(name) != 1:
                raise _no_column(file, names, ours, name)
    return wanted


def _no_column(file: DataFile, names: list[str], ours: str, name: str) -> DataError:
    if name in names:
        return DataError(f"{file.name} has {names.count(name)} columns called {name}", fix="rename all but one")
    setting = {"part": "split"}.get(ours, ours.split(".")[0])
    if any(len(other) > 64 for other in names):
        # Then the first row is no header, and must not be shown.
        return DataError(f"{file.name} has no header row; wanted a column {name}", fix="add a line of column names")
    near = difflib.get_close_matches(name, names, n=len(names) + 1, cutoff=0.0)
    rest = [other for other in names if other not in near]
    there = ", ".join([*near, *rest][:8]) + (", ..." if len(names) > 8 else "")
    return DataError(
        f"{file.name} has no column {name}; it has {there or 'none'}", fix=f"name it with -s read.{setting}=COLUMN"
    )
