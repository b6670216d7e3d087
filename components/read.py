"""Read the user's rows from files, folders, globs, object storage, package data or a sample, and check their labels.

Types are never inferred from a sample of the rows: every row is read, and errors name the file and the row.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import INPUT_PREFIX, SLICE_PREFIX, Column, Role
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.core.params import Params, Source
from raypath.components.core.uris import check_database, check_encoding, check_no_secret
from raypath.components.data.wording import plural

if TYPE_CHECKING:
    from raypath.components.data.file_shard import FileShard
    from raypath.components.data.labels.classes import ClassCollector, SetCollector
    from raypath.components.data.sources.data_file import DataFile, FileSettings
    from raypath.components.data.streaming.progress import ProgressReporter

    LabelCollector = ClassCollector | SetCollector

DOWNLOADS = ".objects"
"""Folder in the step's scratch for downloaded objects; hidden folders of scratch are not copied to the store."""


class ReadParams(Params):
    """Location of the rows, and names of their columns."""

    uri: Source = "sample://reviews"
    """A file, a folder, a glob, or one of these in a bucket (s3://, gs://, az://BUCKET/KEY), package://PACKAGE/PATH, a
    database (sqlite:///PATH, postgresql://HOST/NAME) or sample:// with reviews, movies or tweets. csv, tsv, jsonl, json
    (each also .gz, .zst, .bz2, .zip), parquet, xlsx, a saved dataset of Hugging Face, a Delta table, or a folder of
    text files by class. In a folder, files named train..., valid... and test... are read as these splits."""
    text: str = "text"
    """Name of the text column, if it is the only input."""
    inputs: tuple[str, ...] = ()
    """Names of several input columns, such as title,body; they replace `text`."""
    conversations: Literal["auto", "messages", "alpaca", "prompt", "text", "preference"] | None = None
    """Format of conversations: lists of messages in OpenAI's format or ShareGPT's, instructions with outputs (Alpaca),
    prompts with completions, texts, or pairs of a chosen and a rejected response; auto detects it by the columns.
    If the columns have other names than usual, `inputs` lists them in this order."""
    kinds: dict[str, str] = Field(default_factory=dict)
    """Kinds of the input columns that are not text, and of `slices`, such as kinds.price=number: category, set, number,
    boolean or time, or package.module:Class for one of your own."""
    label: str | None = "label"
    """Name of the column with the class, the set of classes or the number; none for rows without labels. Several
    columns are separated by commas: numbers, or for kind=set a column of 1 and 0 for each class."""
    kind: Literal["class", "set", "number", "text"] = "class"
    """Kind of the labels: one class per row, a set of classes (which may be empty), numbers to predict, or a text to
    write for `text`, such as its translation or summary."""
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
    id: str | None = None
    """Name of a column that identifies rows; `predict` copies it to its output."""
    time: str | None = None
    """Name of a column with dates: the latest rows become the test split, those before them valid, the others train."""
    weight: str | None = None
    """Name of a column with numbers, 0 or more: the weight of a row's loss in training."""
    slices: tuple[str, ...] = ()
    """Names of columns that no model reads: the evaluation report compares rows by their values."""
    nulls: Literal["error", "drop"] = "error"
    """Rows without label, time or weight, or without a value in any input column: raise an error, or drop them."""
    encoding: str = "utf-8"
    """Encoding of csv, tsv, json and txt files without a byte order mark, such as cp1252 or gb18030."""
    delimiter: str = ""
    """Separator of the columns in csv files, one character or tab; detected if empty."""
    quotes: Literal["standard", "backslash", "none"] = "standard"
    """Quotes in csv and tsv files: doubled inside quoted values, escaped by a backslash there, or read as written."""
    decimal: Literal[".", ","] = "."
    """Decimal sign of numbers in text; with a comma, as in 1.234,50, points separate thousands."""
    sheet: str = ""
    """Sheet of an Excel file; needed if several have rows."""
    query: str = ""
    """Query of a database, such as SELECT text, label FROM reviews ORDER BY id."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if not all(self.labels):
            raise ValueError("label has a comma without a name next to it")
        if not self.separator:
            raise ValueError("separator is empty")
        if self.kind == "text" and (self.conversations or self.inputs or not self.label):
            raise ValueError("kind=text takes the columns text and label; leave inputs and conversations out")
        if self.conversations == "auto" and self.inputs:
            raise ValueError("inputs names columns of a form; set conversations to the form too")
        check_encoding(self.encoding)
        if len(self.delimiter) > 1 and self.delimiter != "tab":
            raise ValueError("delimiter is one character, or tab")
        for name in self.source_fields():
            check_no_secret(name, getattr(self, name) or "")
        check_database(self.uri, self.query)
        columns = self.input_columns()
        others = (self.group, self.id, self.time, self.weight, *self.slices)
        target = (self.label,) if self.kind == "text" else ()
        names = [name for name in (*(each.name for each in columns), *self.labels, *target, *others) if name]
        if len(set(names)) < len(names):
            raise ValueError("inputs (or text), label, group, id, time, weight and slices name the same column twice")
        unknown = [name for name in self.kinds if name not in {*(each.name for each in columns), *self.slices}]
        if unknown:
            raise ValueError(f"kinds names {unknown[0]}, which is no input column")
        return self

    def input_columns(self) -> tuple[Column, ...]:
        """Return the input columns; a single text is stored as `text`, others under their names with a prefix.

        For conversations these are the columns of the files that the settings name.
        """
        names = self.inputs or (() if self.conversations else (self.text,))
        if len(names) == 1 and self.kinds.get(names[0], "text") == "text":
            return (Column(name=names[0]),)
        return tuple(Column(name=name, kind=self.kinds.get(name, "text"), stored=INPUT_PREFIX + name) for name in names)

    def auxiliary(self) -> tuple[Column, ...]:
        """Return the columns with the roles time, weight and slice."""
        roles = ((Role.TIME, self.time, "time"), (Role.WEIGHT, self.weight, "number"))
        found = [Column(name=name, kind=kind, role=role, stored=role) for role, name, kind in roles if name]
        kinds = {name: self.kinds.get(name, "category") for name in self.slices}
        return (*found, *(Column(name=n, kind=k, role=Role.SLICE, stored=SLICE_PREFIX + n) for n, k in kinds.items()))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label columns. Classes have one, whose name may contain a comma; a target text is no label."""
        if not self.label or self.kind == "text":
            return ()
        return (self.label,) if self.kind == "class" else tuple(name.strip() for name in self.label.split(","))

    @property
    def file_settings(self) -> FileSettings:
        """Settings of the file formats."""
        from raypath.components.data.sources.data_file import FileSettings

        delimiter = "\t" if self.delimiter == "tab" else self.delimiter
        return FileSettings(self.encoding, delimiter, self.quotes, self.sheet, self.query)


@component(version=1)
def read(ctx: Context, params: ReadParams) -> Dataset:
    """Read the rows in the order of the files: the inputs, the label, and the other columns that the settings name.

    Classes become stripped strings: 3 and 3.0 give "3", true gives "true", and `label_kind` keeps their type. Sets
    become list<string> of distinct classes; numbers become list<float64> in the order of `labels`, the column names.
    Raises DataError for files, columns, texts and labels that cannot be used.
    """
    from raypath.components.data.streaming.progress import ProgressReporter
    from raypath.components.data.streaming.stream import is_small

    shards = shards_of(ctx, params)
    labels, progress = _collector(params), ProgressReporter(ctx)
    write = _write if is_small(shards) else _write_in_tasks
    rows, facts = write(ctx, params, shards, labels, progress)
    shutil.rmtree(ctx.scratch / DOWNLOADS, ignore_errors=True)
    dataset = Dataset(
        rows=rows,
        label_kind=LabelKind.NONE,
        source=params.uri,
        presplit=shards[0].has_split,
        columns=_columns(params, shards[0]),
    )
    return dataset.model_copy(update=facts)


def _write(
    ctx: Context, params: ReadParams, shards: list[FileShard], labels: LabelCollector | None, progress: ProgressReporter
) -> tuple[int, dict[str, Any]]:
    """Write the rows in this process. Returns their number and the facts about their labels."""
    from raypath.components.data.labels.facts import complete_rows, label_facts
    from raypath.components.data.labels.relabel import relabel
    from raypath.components.data.streaming.parquet import TableWriter

    inputs = [column.stored for column in shards[0].columns.inputs]
    with TableWriter(ctx.out, shards[0].schema) as writer:
        for table in (table for shard in shards for table in shard()):
            progress.add(table.num_rows)
            writer.write(complete_rows(table, labels, inputs))
    progress.finish()
    _check_count(ctx, params, progress.done, writer.rows)
    facts, changes = label_facts(ctx.log, shards[0].columns, labels)
    if changes:
        relabel(ctx.out, changes)
    return writer.rows, facts


def _write_in_tasks(
    ctx: Context, params: ReadParams, shards: list[FileShard], labels: LabelCollector | None, progress: ProgressReporter
) -> tuple[int, dict[str, Any]]:
    """Write the same files with Ray Data, each by one task."""
    from raypath.components.data.labels.facts import complete_rows, label_facts
    from raypath.components.data.read_tasks import read_parts, write_parts

    schema = shards[0].schema
    complete = partial(complete_rows, inputs=[column.stored for column in shards[0].columns.inputs])
    parts = read_parts(ctx, shards, schema, complete, labels, progress)
    progress.finish()
    _check_count(ctx, params, progress.done, parts.rows)
    facts, changes = label_facts(ctx.log, shards[0].columns, labels)
    write_parts(ctx, parts, schema, changes)
    return parts.rows, facts


def _collector(params: ReadParams) -> LabelCollector | None:
    """Create the collector of the labels; None for numbers and rows without labels."""
    from raypath.components.data.labels.classes import ClassCollector, SetCollector

    if not params.label or params.kind in ("number", "text"):
        return None
    return SetCollector(params.label) if params.kind == "set" else ClassCollector(params.label)


def _columns(params: ReadParams, shard: FileShard) -> tuple[Column, ...]:
    """Columns of the dataset with their roles."""
    kind = {"class": "category"}.get(params.kind, params.kind)
    found = [Column(name=name, kind=kind, role=Role.TARGET, stored="label") for name in shard.columns.labels]
    for role, name in ((Role.GROUP, shard.columns.group), (Role.ID, shard.columns.id)):
        if name:
            found.append(Column(name=name, kind="category", role=role, stored=role.value))
    return (*shard.columns.inputs, *found, *params.auxiliary())


def _check_count(ctx: Context, params: ReadParams, seen: int, kept: int) -> None:
    if kept == 0:
        raise DataError(f"{params.uri} has no rows", fix="correct read.uri")
    if seen > kept:
        ctx.log.warning("dropped %s without text or label", plural(seen - kept, "row"))


def shards_of(ctx: Context, params: ReadParams) -> list[FileShard]:
    """Create one shard per file, or several for a large Parquet file, all with the same columns.

    Raises DataError for a missing column.
    """
    from raypath.components.data.columns.conversations.forms import SOURCE_TARGET, compose
    from raypath.components.data.columns.conversations.recognition import find_composition
    from raypath.components.data.columns.schema import Columns
    from raypath.components.data.file_shard import FileShard
    from raypath.components.data.formats.parquet_reader import divided
    from raypath.components.data.sources.existing_columns import existing_columns
    from raypath.components.data.sources.files import find

    files = find(params.uri, ctx.log, ctx.scratch / DOWNLOADS, params.file_settings)
    if params.valid or params.test:
        files = list(_with_separate_splits(ctx, params, files))
    by_name = any(file.split for file in files)
    inputs, composed = params.input_columns(), None
    if params.kind == "text":
        composed = compose(SOURCE_TARGET, (), (params.text, str(params.label)))
    elif form := params.conversations:
        composed = find_composition(files, form, params.inputs, params.text, ctx.log)
    if composed:
        inputs = (composed.column,)
    sources = [name for _, name in composed.parts] if composed else [each.name for each in inputs]
    taken = (*sources, *(each.name for each in params.auxiliary()), *params.labels, params.group, params.id)
    split = "" if by_name or params.split in taken else params.split or ""
    kind = LabelKind.NONE if params.kind == "text" else LabelKind(params.kind)
    names = {"split": split, "group": params.group or "", "id": params.id or ""}
    forms = {"separator": params.separator, "decimal": params.decimal}
    wanted = Columns(
        inputs, params.labels, kind=kind, auxiliary=params.auxiliary(), composed=composed, **names, **forms
    )
    columns = existing_columns(files, wanted)
    has_split = by_name or bool(columns.split)
    pieces = [piece for file in files for piece in divided(file)]
    return [FileShard(piece, columns, has_split, params.nulls == "drop") for piece in pieces]


def _with_separate_splits(ctx: Context, params: ReadParams, train: list[DataFile]) -> Iterator[DataFile]:
    """Yield the files of `uri` as train, and those of `valid` and `test` as their splits."""
    from raypath.components.data.sources.files import find

    yield from (replace(file, split="train") for file in train)
    for split, uri in (("valid", params.valid), ("test", params.test)):
        if uri:
            files = find(uri, ctx.log, ctx.scratch / DOWNLOADS, params.file_settings)
            yield from (replace(file, split=split) for file in files)
