"""Read the user's rows from files, folders, globs, object storage, package data or a sample, and check their labels.

Types are never inferred from a sample of the rows: every row is read, and errors name the file and the row.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from raypath.components.core.artifacts import Dataset
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.core.params import Params, Source

if TYPE_CHECKING:
    from raypath.components.data.columns.labels import ClassCollector, SetCollector
    from raypath.components.data.columns.schema import Columns
    from raypath.components.data.file_shard import FileShard
    from raypath.components.data.sources.files import DataFile
    from raypath.components.data.streaming.progress import ProgressReporter

    LabelCollector = ClassCollector | SetCollector

DOWNLOADS = ".objects"
"""Folder in the step's scratch for downloaded objects; hidden folders of scratch are not copied to the store."""


class ReadParams(Params):
    """Location of the rows, and names of their columns."""

    uri: Source = "sample://reviews"
    """A file, a folder, a glob, or one of these in a bucket (s3://BUCKET/KEY), package://PACKAGE/PATH or sample:// with
    reviews, movies or tweets; csv, tsv, jsonl (each also .gz), parquet. In a folder, files named train..., valid... and
    test... are read as these splits."""
    text: str = "text"
    """Name of the text column."""
    label: str | None = "label"
    """Name of the column with the class, the set of classes or the number; several numeric columns separated by
    commas; none for rows without labels."""
    kind: Literal["class", "set", "number"] = "class"
    """Kind of the labels: one class per row, a set of classes (which may be empty), or numbers to predict."""
    separator: str = "|"
    """Separator of the classes of a set in a text cell; a cell that starts with [ is parsed as a JSON list, and an
    empty cell as the empty set."""
    valid: Source | None = None
    """Files of the validation split, written as `uri`."""
    test: Source | None = None
    """Files of the test split, written as `uri`."""
    split: str | None = "split"
    """Name of a column with the values train, valid or test; ignored if there is no such column."""
    group: str | None = None
    """Name of a column: rows with the same value stay in one split (for example one author or one customer)."""
    nulls: Literal["error", "drop"] = "error"
    """Rows without text or label: raise an error, or drop them."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if not all(self.labels):
            raise ValueError("label has a comma without a name next to it")
        if not self.separator:
            raise ValueError("separator is empty")
        names = [name for name in (self.text, *self.labels, self.group) if name]
        if len(set(names)) < len(names):
            raise ValueError("text, label and group name the same column twice")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label columns. Only numbers can have several, since a name may contain a comma."""
        if not self.label:
            return ()
        return tuple(name.strip() for name in self.label.split(",")) if self.kind == "number" else (self.label,)


@component(version=1)
def read(ctx: Context, params: ReadParams) -> Dataset:
    """Read the rows in the order of the files, as columns text, label, and split and group if there are any.

    Classes become stripped strings: 3 and 3.0 give "3", true gives "true", and `label_kind` keeps their type. Sets
    become list<string> of distinct classes; numbers become list<float64> in the order of `labels`, the column names.
    Raises DataError for files, columns, texts and labels that cannot be used.
    """
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.stream import is_small

    shards = _shards(ctx, params)
    labels, progress = _collector(params), ProgressReporter(ctx)
    write = _write if is_small(shards) else _write_in_tasks
    rows, facts = write(ctx, params, shards, labels, progress)
    shutil.rmtree(ctx.scratch / DOWNLOADS, ignore_errors=True)
    dataset = Dataset(rows=rows, label_kind=LabelKind.NONE, source=params.uri, presplit=shards[0].has_split)
    return dataset.model_copy(update=facts)


def _write(
    ctx: Context, params: ReadParams, shards: list[FileShard], labels: LabelCollector | None, progress: ProgressReporter
) -> tuple[int, dict[str, Any]]:
    """Write the rows in this process. Returns their number and the facts about their labels."""
    from raypath.components.data.columns.relabel import relabel
    from raypath.components.data.streaming.parquet import TableWriter

    with TableWriter(ctx.out, _schema(shards)) as writer:
        for table in (table for shard in shards for table in shard()):
            progress.add(table.num_rows)
            writer.write(_complete_rows(table, labels))
    progress.finish()
    _check_count(ctx, params, progress.done, writer.rows)
    facts, changes = _label_facts(ctx, params, labels)
    if changes:
        relabel(ctx.out, changes)
    return writer.rows, facts


def _write_in_tasks(
    ctx: Context, params: ReadParams, shards: list[FileShard], labels: LabelCollector | None, progress: ProgressReporter
) -> tuple[int, dict[str, Any]]:
    """Write the same files with Ray Data, each by one task."""
    from raypath.components.data.read_tasks import read_parts, write_parts

    schema = _schema(shards)
    parts = read_parts(ctx, shards, schema, _complete_rows, labels, progress)
    progress.finish()
    _check_count(ctx, params, progress.done, parts.rows)
    facts, changes = _label_facts(ctx, params, labels)
    write_parts(ctx, parts, schema, changes)
    return parts.rows, facts


def _collector(params: ReadParams) -> LabelCollector | None:
    """Create the collector of the labels; None for numbers and rows without labels."""
    from raypath.components.data.columns.labels import ClassCollector, SetCollector

    if not params.label or params.kind == "number":
        return None
    return SetCollector(params.label) if params.kind == "set" else ClassCollector(params.label)


def _label_facts(
    ctx: Context, params: ReadParams, labels: LabelCollector | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of the Dataset that describe its labels, and the labels to rewrite: as read to normalized."""
    from raypath.components.data.columns.labels import SetCollector

    if labels is None:
        return ({"label_kind": LabelKind.NUMBER, "labels": params.labels} if params.label else {}), {}
    if isinstance(labels, SetCollector):
        if labels.empty:
            ctx.log.warning("%s rows have no class: their set is empty", f"{labels.empty:,}")
        return {"label_kind": LabelKind.SET}, {}
    kind, changes = labels.resolve()
    return {"label_kind": kind}, changes


def _complete_rows(table: Any, labels: LabelCollector | None) -> Any:
    """Drop the rows marked as incomplete, and collect the labels of the others."""
    if table["text"].null_count:
        table = table.filter(table["text"].is_valid())
    if labels is not None:
        labels.add(table)
    return table


def _check_count(ctx: Context, params: ReadParams, seen: int, kept: int) -> None:
    if kept == 0:
        raise DataError(f"{params.uri} has no rows", fix="correct read.uri")
    if seen > kept:
        ctx.log.warning("dropped %s rows without text or label", f"{seen - kept:,}")


def _schema(shards: list[FileShard]) -> Any:
    import pyarrow as pa

    columns = shards[0].columns
    types = {LabelKind.SET: pa.list_(pa.string()), LabelKind.NUMBER: pa.list_(pa.float64())}
    fields = [("text", pa.string())]
    fields += [("label", types.get(columns.kind, pa.string()))] if columns.labels else []
    fields += [("group", pa.string())] if columns.group else []
    fields += [("split", pa.string())] if shards[0].has_split else []
    return pa.schema(fields)


def _shards(ctx: Context, params: ReadParams) -> list[FileShard]:
    """Create one shard per file, all with the same columns. Raises DataError for a missing column."""
    from raypath.components.data.columns.schema import Columns
    from raypath.components.data.file_shard import FileShard
    from raypath.components.data.sources.files import find

    files = find(params.uri, ctx.log, ctx.scratch / DOWNLOADS)
    if params.valid or params.test:
        files = list(_with_separate_splits(ctx, params, files))
    by_name = any(file.split for file in files)
    taken = (params.text, *params.labels, params.group)
    split = "" if by_name or params.split in taken else params.split or ""
    kind = LabelKind(params.kind)
    columns = _existing(files, Columns(params.text, params.labels, split, params.group or "", kind, params.separator))
    has_split = by_name or bool(columns.split)
    return [FileShard(file, columns, has_split, params.nulls == "drop") for file in files]


def _with_separate_splits(ctx: Context, params: ReadParams, train: list[DataFile]) -> Iterator[DataFile]:
    """Yield the files of `uri` as train, and those of `valid` and `test` as their splits."""
    from raypath.components.data.sources.files import find

    yield from (replace(file, split="train") for file in train)
    for split, uri in (("valid", params.valid), ("test", params.test)):
        if uri:
            yield from (replace(file, split=split) for file in find(uri, ctx.log, ctx.scratch / DOWNLOADS))


def _existing(files: list[DataFile], columns: Columns) -> Columns:
    """Check that every file has the columns; the split column is left out if no file has it."""
    from raypath.components.data.formats.readers import columns_in

    names_by_file = {file: columns_in(file) for file in files}
    if columns.split and not any(columns.split in names for names in names_by_file.values()):
        columns = replace(columns, split="")
    for file, names in names_by_file.items():
        for canonical, name in columns.selected().items():
            if names.count(name) != 1:
                raise _column_error(file, names, canonical, name)
    return columns


def _column_error(file: DataFile, names: list[str], canonical: str, name: str) -> DataError:
    if name in names:
        return DataError(f"{file.name} has {names.count(name)} columns called {name}", fix="rename all but one")
    setting = canonical.split(".")[0]
    if any(len(other) > 64 for other in names):
        # The first row is probably not a header but data, which must not be shown.
        return DataError(f"{file.name} has no header row; wanted a column {name}", fix="add a line of column names")
    near = difflib.get_close_matches(name, names, n=len(names) + 1, cutoff=0.0)
    rest = [other for other in names if other not in near]
    existing = ", ".join([*near, *rest][:8]) + (", ..." if len(names) > 8 else "")
    return DataError(
        f"{file.name} has no column {name}; it has {existing or 'none'}", fix=f"set -s read.{setting}=COLUMN"
    )
