"""Columns as strings, with a note of what each label was.

All readers give the columns `text`, `label`, `kind`, `part`, `group`, as many as are wanted, all strings. `kind` is
string, int, bool or float, or text where the format (CSV) has no types. Where labels are sets, `label` is list<string>
and there is no `kind`; where they are numbers, the columns `label.0`, `label.1`, ... are float64, one a target. Null
is what is missing, or is no set or no number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from raypath.components.core.errors import DataError
from raypath.components.data.columns.label_sets import to_sets
from raypath.components.data.columns.numeric import to_numbers
from raypath.components.data.sources.files import DataFile

_SINGLE = "words, whole numbers or booleans"
_MANY = "name another column, or set -s read.kind=set where a row has several classes"


@dataclass(frozen=True)
class Columns:
    """The user's names of the columns to read; "" for those that are not wanted.

    labels: several columns where `kind` is number, else at most one. kind, separator: as in ReadParams.
    """

    text: str
    labels: tuple[str, ...] = ()
    part: str = ""
    group: str = ""
    kind: str = "class"
    separator: str = "|"

    def labelled(self) -> dict[str, str]:
        """Our name of each label column -> the user's."""
        if self.kind == "number":
            return {f"label.{n}": name for n, name in enumerate(self.labels)}
        return {"label": self.labels[0]} if self.labels else {}

    def wanted(self) -> dict[str, str]:
        """Our name of each wanted column -> the user's."""
        names = {"text": self.text, **self.labelled(), "part": self.part, "group": self.group}
        return {ours: name for ours, name in names.items() if name}

    def shapes(self, ours: str) -> bool:
        """True for a column of sets or of numbers."""
        return self.kind != "class" and ours in self.labelled()

    def shaped(self, values: Iterable[Any]) -> pa.Array:
        """Values of such a column as list<string> or float64."""
        return to_sets(values, self.separator) if self.kind == "set" else to_numbers(values)


def untyped(columns: Columns, table: pa.Table) -> pa.Table:
    """A table whose columns are all text already, as CSV gives them."""
    for place, ours in enumerate(table.column_names):
        if columns.shapes(ours):
            table = table.set_column(place, ours, columns.shaped(table[ours].to_pylist()))
    if columns.kind != "class" or "label" not in table.column_names:
        return table
    labels = pc.utf8_trim_whitespace(table["label"])
    table = table.set_column(table.column_names.index("label"), "label", labels)
    return _with_kind(table, "text")


def from_arrow(file: DataFile, columns: Columns, table: pa.Table) -> pa.Table:
    """Typed columns as strings. Raises DataError for a text column of numbers, or a label that is no single value."""
    arrays, kind = {}, ""
    for ours, name in columns.wanted().items():
        array = table[ours]
        if types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        if columns.shapes(ours):
            arrays[ours] = columns.shaped(array.to_pylist())
            continue
        if ours == "label":
            kind, array = _label(file, name, array)
        elif ours == "text" and not _is_text(array.type):
            raise _wrong_type(file, name, str(array.type), "text")
        arrays[ours] = _cast(file, name, array)
    plain = pa.table(arrays)
    return _with_kind(plain, kind) if kind else plain


def _cast(file: DataFile, name: str, array: Any) -> Any:
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _wrong_type(file, name, str(array.type), "single values") from None


def _label(file: DataFile, name: str, array: Any) -> tuple[str, Any]:
    """(kind, label as strings): 3 and 3.0 -> "3", True -> "true"."""
    kind = array.type
    if _is_text(kind):
        return "string", pc.utf8_trim_whitespace(array.cast(pa.string()))
    if types.is_boolean(kind):
        return "bool", array.cast(pa.string())
    if types.is_integer(kind):
        return "int", array.cast(pa.string())
    if types.is_null(kind):
        return "string", array.cast(pa.string())
    if types.is_nested(kind):
        raise _wrong_type(file, name, str(kind), _SINGLE, fix=_MANY)
    if not types.is_floating(kind):
        raise _wrong_type(file, name, str(kind), _SINGLE)
    array = array.cast(pa.float64())
    known = pc.if_else(pc.is_finite(array), array, None)  # NaN is how pandas writes a missing number
    whole = pc.all(pc.equal(pc.floor(known), known)).as_py()
    return ("int", known.cast(pa.int64()).cast(pa.string())) if whole in (True, None) else ("float", known)


def _is_text(kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def from_objects(file: DataFile, columns: Columns, objects: list[dict[str, Any]], first: int) -> pa.Table:
    """JSON objects as columns of strings; a missing key is null. first: the row number of the first object."""
    arrays: dict[str, Any] = {}
    for ours, name in columns.wanted().items():
        values = [found.get(name) for found in objects]
        if columns.shapes(ours):
            arrays[ours] = columns.shaped(values)
        elif ours == "label":
            pairs = [_json_label(file, name, value, first + n) for n, value in enumerate(values)]
            arrays["label"] = [text for text, _ in pairs]
            arrays["kind"] = [kind for _, kind in pairs]
        elif ours == "text":
            arrays["text"] = [_json_text(file, name, value, first + n) for n, value in enumerate(values)]
        else:
            arrays[ours] = [None if value is None else str(value) for value in values]
    try:
        return pa.table({name: _strings(values) for name, values in arrays.items()})
    except UnicodeEncodeError:
        last = first + len(objects) - 1
        what = f"{file.name} has half a surrogate pair (\\ud800-\\udfff) in rows {first}-{last}"
        raise DataError(what, fix="write the file again with whole characters") from None


def _strings(values: Any) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, pa.string())


def _json_text(file: DataFile, name: str, value: Any, row: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _wrong_type(file, name, f"{type(value).__name__} in row {row}", "text")


def _json_label(file: DataFile, name: str, value: Any, row: int) -> tuple[str | None, str | None]:
    """(label, kind); null and NaN -> (None, None)."""
    if value is None or value != value:
        return None, None
    if isinstance(value, bool):
        return ("true" if value else "false"), "bool"
    if isinstance(value, int):
        return str(value), "int"
    if isinstance(value, float):
        return (str(int(value)), "int") if value.is_integer() else (str(value), "float")
    if isinstance(value, str):
        return value.strip(), "string"
    raise _wrong_type(file, name, f"{type(value).__name__} in row {row}", _SINGLE, fix=_MANY)


def _wrong_type(file: DataFile, name: str, got: str, wanted: str, fix: str = "name another column") -> DataError:
    return DataError(f"column {name} of {file.name} holds {got}; wanted {wanted}", fix=fix)


def _with_kind(table: pa.Table, kind: str) -> pa.Table:
    return table.append_column("kind", pa.array([kind] * table.num_rows, pa.string()))
