"""Columns by which the rows of a split are divided into slices, read in one pass: a code a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import Column, Role, inputs_of
from raypath.components.data.rendering import contents
from raypath.components.data.streaming.parquet import scan, schema_of
from raypath.components.inspection.texts.languages import NAMES, UNKNOWN, language_codes
from raypath.components.inspection.texts.words import split_words

LENGTH, LANGUAGE = "text length", "language"
MOST_VALUES = 20
"""Most values of a column that are slices of their own: the most frequent. The others have none."""
_TRACKED = 10_000
"""Most values of a column; one with more is left out."""
_LANGUAGE_CHARACTERS = 300
"""Characters of a text that its language is told by."""
_MIN_SHARE = 0.01
"""Least share of a language that is a slice."""


@dataclass(frozen=True)
class SliceColumn:
    """Slices of one column. codes: slice of each row, int32 [N], -1 for none; values: names of the slices."""

    name: str
    codes: Array
    values: tuple[str, ...]


def slice_columns(data: Dataset) -> list[SliceColumn]:
    """Read length, language, and every column with categories, booleans, numbers or times but the label, groups and
    ids."""
    have = set(schema_of(data.uri).names)
    inputs = [column for column in inputs_of(data.columns) if column.stored in have]
    used = [column for column in data.columns if column.role is not Role.TARGET and column.stored in have]
    readers = [_reader(column) for column in used if column.kind in _READERS and column.role in _ROLES]
    lengths: list[Array] = []
    languages: list[Array] = []
    stored = list(dict.fromkeys([*(each.stored for each in inputs), *(each.column.stored for each in readers)]))
    for table in scan(data.uri, stored):
        texts = pc.fill_null(contents(table, inputs), "").combine_chunks()
        lengths.append(pc.utf8_length(texts).to_numpy(zero_copy_only=False))
        start = pc.utf8_slice_codeunits(texts, 0, _LANGUAGE_CHARACTERS)
        languages.append(language_codes(start, split_words(start)))
        for reader in readers:
            reader.add(table[reader.column.stored])
    if not lengths:
        return []
    found = [_binned(LENGTH, np.concatenate(lengths).astype(np.float64), " characters"), _languages(languages)]
    return [each for each in [*found, *(reader.finish() for reader in readers)] if each and len(each.values) > 1]


def texts_of(data: Dataset, rows: Sequence[int]) -> dict[int, str]:
    """Read the texts of a few rows, of all inputs, by row number."""
    inputs = inputs_of(data.columns)
    found: dict[int, str] = {}
    wanted, first = np.asarray(rows, np.int64), 0
    for table in scan(data.uri, [column.stored for column in inputs]) if len(wanted) else ():
        here = wanted[(wanted >= first) & (wanted < first + table.num_rows)]
        if len(here):
            chosen = contents(table.take(pa.array(here - first)), inputs).to_pylist()
            found |= dict(zip(here.tolist(), (text or "" for text in chosen), strict=True))
        first += table.num_rows
    return found


@dataclass
class _Values:
    """Categories and booleans, counted while they are read."""

    column: Column
    codes: list[Array] = field(default_factory=list)
    known: dict[Any, int] = field(default_factory=dict)

    def add(self, array: Any) -> None:
        if len(self.known) > _TRACKED:
            return
        encoded = pc.dictionary_encode(array.combine_chunks())
        numbers = [self.known.setdefault(value, len(self.known)) for value in encoded.dictionary.to_pylist()]
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        self.codes.append(np.array([*numbers, -1], np.int32)[codes])

    def finish(self) -> SliceColumn | None:
        if not self.known or len(self.known) > _TRACKED:
            return None
        codes = np.concatenate(self.codes)
        names = [{True: "yes", False: "no"}.get(value, str(value)) for value in self.known]
        return _most_frequent(self.column.name, codes, names)


@dataclass
class _Numbers:
    """Numbers and times, divided at their quartiles."""

    column: Column
    numbers: list[Array] = field(default_factory=list)

    def add(self, array: Any) -> None:
        given = array.cast(pa.int64()) if self.column.kind == "time" else array
        self.numbers.append(given.cast(pa.float64()).to_numpy().astype(np.float64))

    def finish(self) -> SliceColumn | None:
        return _binned(self.column.name, np.concatenate(self.numbers), times=self.column.kind == "time")


_READERS: dict[str, Any] = {"category": _Values, "boolean": _Values, "number": _Numbers, "time": _Numbers}
_ROLES = (Role.INPUT, Role.TIME, Role.WEIGHT, Role.SLICE)
"""Groups and ids are left out: they name persons or rows rather than kinds of rows."""


def _reader(column: Column) -> Any:
    return _READERS[column.kind](column)


def _most_frequent(name: str, codes: Array, names: Sequence[str]) -> SliceColumn:
    rows = np.bincount(codes[codes >= 0], minlength=len(names))
    kept = np.argsort(-rows, kind="stable")[:MOST_VALUES]
    renumbered = np.full(len(names) + 1, -1, np.int32)
    renumbered[kept] = np.arange(len(kept))
    return SliceColumn(name, renumbered[codes], tuple(names[n] for n in kept))


def _languages(batches: list[Array]) -> SliceColumn | None:
    codes = np.concatenate(batches)
    rows = np.bincount(codes, minlength=len(NAMES))
    frequent = [n for n in np.flatnonzero(rows >= _MIN_SHARE * len(codes)) if NAMES[n] != UNKNOWN]
    if len(frequent) < 2:
        return None
    renumbered = np.full(len(NAMES), -1, np.int32)
    renumbered[frequent] = np.arange(len(frequent))
    return SliceColumn(LANGUAGE, renumbered[codes], tuple(NAMES[n] for n in frequent))


def _binned(name: str, numbers: Array, unit: str = "", times: bool = False) -> SliceColumn | None:
    """Divide numbers at their quartiles; each distinct number is a slice where there are at most four."""
    known = np.isfinite(numbers)
    if not known.any():
        return None
    distinct = np.unique(numbers[known])
    few = len(distinct) <= 4
    inner = distinct[1:] if few else np.unique(np.quantile(numbers[known], [0.25, 0.5, 0.75]))
    codes = np.where(known, np.searchsorted(inner, numbers, side="right" if few else "left"), -1).astype(np.int32)
    names = []
    for n in range(len(inner) + 1):
        inside = numbers[codes == n]
        names.append(_span(inside.min(), inside.max(), times) + unit if len(inside) else "")
    return SliceColumn(name, codes, tuple(names))


def _span(low: float, high: float, times: bool) -> str:
    ends = [
        str(np.datetime64(int(end), "us").astype("datetime64[D]")) if times else f"{end:,.6g}" for end in (low, high)
    ]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
