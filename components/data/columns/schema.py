"""Convert the user's columns to the canonical ones.

Readers return the selected input columns by their stored names, of the types of their kinds, and `label`, `kind`,
`split`, `group` and `id`, all strings, and `time`, `weight` and slices. `kind` is the type of the label value: string,
int, bool, float, or text for formats without types (CSV). Label sets are read as a list<string> column `label` without
`kind`; numeric targets as float64 columns `label.0`, `label.1`, ...; one-hot columns of a set as boolean ones. A null
is a missing value, or one that is not a set or not a number. The boolean column `invalid` marks rows with a value that
is not of its kind, and `reason` what is wrong with it; they are left out where there are none. Where an input is
composed of several columns of the file (`Columns.composed`), those are its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from raypath.components.core.columns import Column, Role
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.data.columns.catalog import kind_of
from raypath.components.data.columns.conversations.forms import SOURCE_TARGET, Composition
from raypath.components.data.columns.kind import ColumnKind
from raypath.components.data.columns.nested import value_of
from raypath.components.data.columns.numeric import to_numbers, with_point
from raypath.components.data.labels.classes import FLOAT, UNTYPED
from raypath.components.data.labels.sets import to_sets
from raypath.components.data.sources.data_file import DataFile

INVALID, REASON = "invalid", "reason"
_SINGLE = "strings, integers or booleans"
_USE_SETS = "name another column, or set -s read.kind=set if a row has several classes"


@dataclass(frozen=True)
class Columns:
    """The user's names of the columns to read; "" for a column that is not read.

    labels: several columns for numbers and one-hot sets, else at most one. kind, separator: as in ReadParams.
    """

    inputs: tuple[Column, ...]
    labels: tuple[str, ...] = ()
    split: str = ""
    group: str = ""
    kind: LabelKind = LabelKind.CLASS
    separator: str = "|"
    id: str = ""
    decimal: str = "."
    """Decimal sign of numbers in text."""
    auxiliary: tuple[Column, ...] = ()
    """Columns with the roles time, weight and slice."""
    composed: Composition | None = None
    """Columns of the file that are the parts of the only input."""

    @property
    def one_hot(self) -> bool:
        """True if each class of a set has a column of its own."""
        return self.kind is LabelKind.SET and len(self.labels) > 1

    def label_columns(self) -> dict[str, str]:
        """Map the canonical name of each label column to the user's."""
        if self.kind is LabelKind.NUMBER or self.one_hot:
            return {f"label.{n}": name for n, name in enumerate(self.labels)}
        return {"label": self.labels[0]} if self.labels else {}

    def selected(self) -> dict[str, str]:
        """Map the canonical name of each selected column to the user's."""
        inputs = {column.stored: column.name for column in self.inputs}
        inputs = self.composed.selected() if self.composed else inputs
        names = {**inputs, **self.label_columns(), "split": self.split, "group": self.group, "id": self.id}
        names |= {column.stored: column.name for column in self.auxiliary}
        return {canonical: name for canonical, name in names.items() if name}

    def is_parsed(self, canonical: str) -> bool:
        """Return True for a label column of sets or numbers, whose values are parsed one by one."""
        return self.kind is not LabelKind.CLASS and canonical in self.label_columns()

    def parse(self, values: Iterable[Any]) -> pa.Array:
        """Parse the values of such a column as list<string>, boolean or float64."""
        if self.one_hot:
            return kind_of("boolean").column(list(values))[0]
        return to_sets(values, self.separator) if self.kind is LabelKind.SET else to_numbers(self.localized(values))

    def localized(self, values: Iterable[Any]) -> list[Any]:
        """Rewrite numbers in text that have the decimal sign of the settings."""
        return [with_point(value) for value in values] if self.decimal == "," else list(values)

    def parsed_by_kind(self) -> Iterator[tuple[Column, ColumnKind]]:
        """Yield the input columns that are not text, times, weights and slices, with their kinds."""
        columns = (*self.inputs, *self.auxiliary)
        yield from ((column, kind_of(column.kind)) for column in columns if column.kind != "text")

    def raw_names(self) -> list[str]:
        """Return the selected columns whose values are parsed by their kinds, or are parts of such a value."""
        parts = list(self.composed.selected()) if self.composed else []
        return [*parts, *(column.stored for column, _ in self.parsed_by_kind() if not self._is_composed(column))]

    def values(self, column: Column, raw: Mapping[str, Any]) -> list[Any]:
        """Return the values of a column to parse. raw: values by `raw_names`, as lists or Arrow columns."""
        if self._is_composed(column) and self.composed:
            return list(self.composed.values({name: _list(raw[name]) for name in self.composed.selected()}))
        values = _list(raw[column.stored])
        return self.localized(values) if column.kind == "number" else values

    def subject(self, column: Column) -> str:
        """Name a column in a message."""
        if self._is_composed(column) and self.composed and self.composed.form == SOURCE_TARGET:
            return f"the row of {self.composed.described.replace(' or ', ' and ')}"
        whole = self._is_composed(column) and self.composed and len(self.composed.parts) > 1
        if whole:
            return "the preference" if column.kind == "preference" else "the conversation"
        return f"column {column.name}"

    def _is_composed(self, column: Column) -> bool:
        return self.composed is not None and column.role is Role.INPUT

    def is_text(self, canonical: str) -> bool:
        """Return True for an input column of texts."""
        return any(column.stored == canonical and column.kind == "text" for column in self.inputs)


def from_text(columns: Columns, table: pa.Table) -> pa.Table:
    """Convert a table of text columns, as CSV gives them."""
    arrays = {
        name: columns.parse(array.to_pylist()) if columns.is_parsed(name) else array
        for name, array in zip(table.column_names, table.columns, strict=True)
    }
    table = pa.table(arrays)
    table = _with_kinds(columns, table, {name: table[name] for name in columns.raw_names()})
    if columns.kind is not LabelKind.CLASS or "label" not in table.column_names:
        return table
    labels = pc.utf8_trim_whitespace(table["label"])
    table = table.set_column(table.column_names.index("label"), "label", labels)
    return _with_kind(table, UNTYPED)


def from_arrow(file: DataFile, columns: Columns, table: pa.Table) -> pa.Table:
    """Convert typed columns. Raises DataError for a text column of numbers, or a label that is not a single value."""
    arrays, kind = {}, ""
    parsed_later = set(columns.raw_names())
    for canonical, name in columns.selected().items():
        array = table[canonical]
        if types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        if canonical in parsed_later:
            arrays[canonical] = array
            continue
        if columns.is_parsed(canonical):
            arrays[canonical] = columns.parse(array.to_pylist())
            continue
        if canonical == "label":
            kind, array = _label(file, name, array)
        elif columns.is_text(canonical) and not _is_text(array.type):
            raise _wrong_text(file, columns, name, str(array.type))
        arrays[canonical] = _cast(file, name, array)
    converted = _with_kinds(columns, pa.table(arrays), arrays)
    return _with_kind(converted, kind) if kind else converted


def _cast(file: DataFile, name: str, array: Any) -> Any:
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _wrong_type(file, name, str(array.type), "single values") from None


def _label(file: DataFile, name: str, array: Any) -> tuple[str, Any]:
    """Return the kind of a label column and its labels as strings: 3 and 3.0 give "3", True gives "true"."""
    dtype = array.type
    if _is_text(dtype):
        return LabelKind.STRING, pc.utf8_trim_whitespace(array.cast(pa.string()))
    if types.is_boolean(dtype):
        return LabelKind.BOOL, array.cast(pa.string())
    if types.is_integer(dtype):
        return LabelKind.INT, array.cast(pa.string())
    if types.is_null(dtype):
        return LabelKind.STRING, array.cast(pa.string())
    if types.is_nested(dtype):
        raise _wrong_type(file, name, str(dtype), _SINGLE, fix=_USE_SETS)
    if not types.is_floating(dtype):
        raise _wrong_type(file, name, str(dtype), _SINGLE)
    array = array.cast(pa.float64())
    known = pc.if_else(pc.is_finite(array), array, None)  # pandas writes a missing number as NaN
    integral = pc.all(pc.equal(pc.floor(known), known)).as_py()
    if integral in (True, None):
        return LabelKind.INT, known.cast(pa.int64()).cast(pa.string())
    return FLOAT, known


def _is_text(dtype: Any) -> bool:
    return bool(types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype))


def from_objects(file: DataFile, columns: Columns, objects: list[dict[str, Any]], first: int) -> pa.Table:
    """Convert JSON objects; a missing key gives null. first: the row number of the first object."""
    arrays: dict[str, Any] = {}
    raw: dict[str, list[Any]] = {name: [] for name in columns.raw_names()}
    for canonical, name in columns.selected().items():
        values = [value_of(row, name) for row in objects] if "." in name else [row.get(name) for row in objects]
        if columns.is_parsed(canonical):
            arrays[canonical] = columns.parse(values)
        elif canonical == "label":
            pairs = [_json_label(file, name, value, first + n) for n, value in enumerate(values)]
            arrays["label"] = [text for text, _ in pairs]
            arrays["kind"] = [kind for _, kind in pairs]
        elif columns.is_text(canonical):
            arrays[canonical] = [_json_text(file, columns, name, value, first + n) for n, value in enumerate(values)]
        elif canonical in raw:
            raw[canonical] = values
        else:
            arrays[canonical] = [None if value is None else str(value) for value in values]
    try:
        table = pa.table({name: _strings(values) for name, values in arrays.items()})
        return _with_kinds(columns, table, raw)
    except UnicodeEncodeError:
        last = first + len(objects) - 1
        what = f"{file.name} has a lone surrogate (\\ud800-\\udfff) in rows {first}-{last}"
        raise DataError(what, fix="write the file again as valid Unicode") from None


def _strings(values: Any) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, pa.string())


def _list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else list(values.to_pylist())


def _with_kinds(columns: Columns, table: pa.Table, raw: Mapping[str, Any]) -> pa.Table:
    """Parse the columns of other kinds than text. raw: their values by `raw_names`, as lists or Arrow columns."""
    rows = len(next(iter(raw.values()), table))
    invalid, reasons = np.zeros(rows, bool), np.full(rows, None, object)
    parts = columns.composed.selected() if columns.composed else {}
    arrays: dict[str, Any] = {name: table[name] for name in table.column_names if name not in parts}
    for column, kind in columns.parsed_by_kind():
        values = columns.values(column, raw)
        parsed, wrong = kind.column(values)
        for n in np.flatnonzero(wrong & ~invalid):
            reasons[n] = f"{columns.subject(column)} {kind.problem(values[n])}"
        invalid |= wrong
        arrays[column.stored] = parsed
    if invalid.any():
        arrays |= {INVALID: pa.array(invalid), REASON: pa.array(reasons, pa.string())}
    return pa.table(arrays)


def _json_text(file: DataFile, columns: Columns, name: str, value: Any, row: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _wrong_text(file, columns, name, f"{type(value).__name__} in row {row}")


def _wrong_text(file: DataFile, columns: Columns, name: str, got: str) -> DataError:
    other = f"name another column, or set its kind, such as -s read.kinds.{name}=number"
    return _wrong_type(file, name, got, "text", fix=other if len(columns.inputs) > 1 else "name another column")


def _json_label(file: DataFile, name: str, value: Any, row: int) -> tuple[str | None, str | None]:
    """Return a label as a string and its kind; (None, None) for null and NaN."""
    if value is None or value != value:
        return None, None
    if isinstance(value, bool):
        return ("true" if value else "false"), LabelKind.BOOL
    if isinstance(value, int):
        return str(value), LabelKind.INT
    if isinstance(value, float):
        return (str(int(value)), LabelKind.INT) if value.is_integer() else (str(value), FLOAT)
    if isinstance(value, str):
        return value.strip(), LabelKind.STRING
    raise _wrong_type(file, name, f"{type(value).__name__} in row {row}", _SINGLE, fix=_USE_SETS)


def _wrong_type(file: DataFile, name: str, got: str, wanted: str, fix: str = "name another column") -> DataError:
    return DataError(f"column {name} of {file.name} has {got}; wanted {wanted}", fix=fix)


def _with_kind(table: pa.Table, kind: str) -> pa.Table:
    return table.append_column("kind", pa.array([str(kind)] * table.num_rows, pa.string()))
