"""A user's file as a stream of canonical tables: texts and labels present, splits validated."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.columns import Role
from raypath.components.core.errors import DataError, RaypathError
from raypath.components.core.files import link
from raypath.components.core.labels import LabelKind
from raypath.components.data.columns.catalog import kind_of
from raypath.components.data.columns.numeric import pack_targets
from raypath.components.data.columns.schema import INVALID, REASON, Columns
from raypath.components.data.formats.readers import rows_of
from raypath.components.data.labels.sets import pack_one_hot
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.sources.files import SPLIT_NAMES
from raypath.components.data.sources.object_storage import download
from raypath.components.data.streaming.shard_storage import kept

_INVALID = {LabelKind.SET: "is not a list of classes", LabelKind.NUMBER: "is not a finite number"}


@dataclass(frozen=True)
class FileShard:
    """One file to read; a `Shard` for `stream_tables`. It is pickled to workers, so it keeps no open file.

    drop: rows without inputs or label get null inputs, for the caller to count and drop; otherwise raise DataError.
    """

    file: DataFile
    columns: Columns
    has_split: bool = False
    drop: bool = False

    def __call__(self) -> Iterator[pa.Table]:
        for row, table in rows_of(self.file, self.columns):
            made = self._with_split(self._with_label(self._complete(table, row)), row)
            yield made.append_column("row", _numbers(row, made.num_rows)) if self.numbered else made

    @property
    def portable(self) -> bool:
        """True if a task on another node can tell whether it has the same file."""
        return self.file.stamp is not None

    def is_here(self) -> bool:
        """Return True if this machine has the file, of the size and modification time that it was found with."""
        try:
            return self.file.stat() == self.file.stamp
        except OSError:
            return False

    @contextmanager
    def on_this_machine(self, cache: Path, folder: Path) -> Iterator[FileShard | None]:
        """Yield the shard with its file on this machine: the one that was found, or fetched from its bucket.

        None if it is neither here nor can be fetched. cache: of fetched objects; folder: for a link with its name.
        """
        source = self.file.source
        if self.is_here() or source is None:
            yield self if self.is_here() else None
            return
        name = hashlib.sha256("\0".join(map(str, source)).encode()).hexdigest()
        with ExitStack() as stack:
            try:
                path = stack.enter_context(kept(cache, name, source.size, partial(download, source)))
            except RaypathError:
                yield None
                return
            place = folder / f".object-{uuid.uuid4().hex[:8]}"
            place.mkdir(parents=True, mode=0o700)
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            link(str(path), str(place / self.file.path.name))  # its suffix names the compression
            file = replace(self.file, path=place / self.file.path.name)
            yield replace(self, file=replace(file, stamp=file.stat()))

    @property
    def numbered(self) -> bool:
        """True if the rows get their number in the file, `row`: by it predictions are joined where rows are dropped."""
        return self.drop and not self.columns.labels and not self.columns.id

    @property
    def schema(self) -> pa.Schema:
        """Columns of the tables, without the type of class labels, `kind`."""
        columns = self.columns
        labels = {LabelKind.SET: pa.list_(pa.string()), LabelKind.NUMBER: pa.list_(pa.float64())}
        fields = [(each.stored, kind_of(each.kind).type) for each in (*columns.inputs, *columns.auxiliary)]
        fields += [("label", labels.get(columns.kind, pa.string()))] if columns.labels else []
        fields += [("group", pa.string())] if columns.group else []
        fields += [("id", pa.string())] if columns.id else []
        fields += [("split", pa.string())] if self.has_split else []
        fields += [("row", pa.int64())] if self.numbered else []
        return pa.schema(fields)

    def _with_label(self, table: pa.Table) -> pa.Table:
        """Pack several label columns into one."""
        if self.columns.one_hot:
            return pack_one_hot(table, self.columns.label_columns())
        targets = list(self.columns.label_columns()) if self.columns.kind is LabelKind.NUMBER else []
        return pack_targets(table, targets)

    @property
    def bytes(self) -> int:
        return self.file.size

    def _complete(self, table: pa.Table, row: int) -> pa.Table:
        """Reject rows without inputs or label, or mark them by null inputs."""
        problems = self._problems(table)
        if INVALID in table.column_names:
            table = table.drop_columns([INVALID, REASON])
        if not any(pc.any(mask).as_py() for _, mask in problems):
            return table
        if not self.drop:
            raise self._error(problems, row)
        incomplete = problems[0][1]
        for _, mask in problems[1:]:
            incomplete = pc.or_(incomplete, mask)
        for column in self.columns.inputs:
            field = table.schema.field(column.stored)
            nulls = pa.chunked_array([pa.nulls(table.num_rows, field.type)])
            found = pc.if_else(incomplete, nulls, table[column.stored])
            table = table.set_column(table.column_names.index(column.stored), column.stored, found)
        return table

    def _problems(self, table: pa.Table) -> list[tuple[str, Any]]:
        """Masks of the rows that cannot be used, each with what is wrong: "column C is empty"."""
        inputs = [column.stored for column in self.columns.inputs]
        names = ", ".join(column.name for column in self.columns.inputs)
        names = self.columns.composed.described if self.columns.composed else names
        empty = _missing(table[inputs[0]])
        for name in inputs[1:]:
            empty = pc.and_(empty, _missing(table[name]))
        found = [(f"column{'s' if len(inputs) > 1 else ''} {names} {'are' if len(inputs) > 1 else 'is'} empty", empty)]
        if INVALID in table.column_names:
            reason = next(filter(None, table[REASON].to_pylist()))
            same = pc.fill_null(pc.equal(table[REASON], reason), False)
            found[:0] = [(reason, same), (reason, table[INVALID])]
        for extra in (each for each in self.columns.auxiliary if each.role is not Role.SLICE):
            found.append((f"column {extra.name} is empty", pc.is_null(table[extra.stored])))
            if extra.role is Role.WEIGHT:
                found.append((f"column {extra.name} is negative", pc.fill_null(pc.less(table["weight"], 0), False)))
        for name, column in self.columns.label_columns().items():
            problem = _INVALID[self.columns.kind] if self.columns.is_parsed(name) else "is empty"
            if self.columns.one_hot:
                problem = "is neither 1 nor 0"
            found.append((f"column {column} {problem}", _missing(table[name])))
        return found

    def _error(self, problems: list[tuple[str, Any]], row: int) -> DataError:
        problem, mask = next(each for each in problems if pc.any(each[1]).as_py())
        what = f"{self.file.name}: {problem} in {_format_rows(mask, row)} (header not counted)"
        if problem.endswith(_INVALID[LabelKind.SET]):
            # Often a form that all rows have: dropping them would leave few.
            return DataError(what, fix='write ["a", "b"], or a|b with the separator of read.separator')
        if problem.endswith(_INVALID[LabelKind.NUMBER]) and self.columns.decimal == ".":
            fix = "set -s read.decimal=, for numbers such as 12,50, or correct such rows"
            return DataError(what, fix=f"{fix}; -s read.nulls=drop drops them")
        return DataError(what, fix="correct such rows, or drop them with -s read.nulls=drop")

    def _with_split(self, table: pa.Table, row: int) -> pa.Table:
        """Set the column `split` to train, valid, test or null."""
        if not self.has_split:
            return table
        if self.file.split or "split" not in table.column_names:
            given = pa.array([self.file.split or None] * table.num_rows, pa.string())
            names = [name for name in table.column_names if name != "split"]
            return table.select(names).append_column("split", given)
        words = pc.utf8_lower(pc.utf8_trim_whitespace(table["split"]))
        known = pa.chunked_array([[SPLIT_NAMES.get(word or "") for word in words.to_pylist()]], pa.string())
        unknown = pc.and_(pc.is_null(known), pc.invert(_blank(words)))
        if pc.any(unknown).as_py():
            what = f"{self.file.name}: column {self.columns.split} is neither train, valid nor test in "
            fix = "correct it, or ignore the column with -s read.split=none"
            raise DataError(what + _format_rows(unknown, row), fix=fix)
        return table.set_column(table.column_names.index("split"), "split", known)


def _numbers(first: int, rows: int) -> pa.Array:
    return pa.array(range(first, first + rows), pa.int64())


def _missing(column: Any) -> Any:
    """True for a blank text, or a null set or number."""
    return _blank(column) if pa.types.is_string(column.type) else pc.is_null(column)


def _blank(column: Any) -> Any:
    """True for a value that is null or only white space."""
    return pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), True)


def _format_rows(mask: Any, first: int) -> str:
    rows = [str(first + n) for n, bad in enumerate(mask.to_pylist()) if bad]
    more = f" and at least {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"row {', '.join(rows[:3])}{more}"
