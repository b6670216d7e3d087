"""What a dataset is like, a few bytes a row: the label, the given part, a hash of the group and one of the text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypath.components.data.splits.assign import FREE, NAMES
from raypath.components.data.streaming.parquet import label_kind_of, scan, schema_of
from raypath.components.data.streaming.progress import ProgressReporter

_CODES = {name: code for code, name in NAMES.items()}


@dataclass(frozen=True)
class SetMembers:
    """The sets of all rows, a pair a class of a row: codes int32 [M], index in `classes`; rows int64 [M], sorted."""

    codes: NDArray[Any]
    rows: NDArray[Any]


@dataclass(frozen=True)
class LabelStatistics:
    """Arrays of N rows in row order.

    classes: the labels in the order they were met. codes: int32 [N], index in `classes`, 0 where a row has not one
    class. given: int8 [N], FREE or a part. texts: uint64 [N], a hash. groups: uint64 [N], a hash; None without groups.
    members: None where labels are no sets. numbers: the first target, float64 [N]; None where there is none.
    gone: the classes that were taken out of the sets.
    """

    classes: list[str]
    codes: NDArray[Any]
    given: NDArray[Any]
    texts: NDArray[Any]
    groups: NDArray[Any] | None
    members: SetMembers | None = None
    numbers: NDArray[Any] | None = None
    gone: frozenset[str] = frozenset()

    @property
    def classed(self) -> bool:
        """True where rows have classes, one each or sets."""
        return bool(self.classes) or self.members is not None

    def counts(self) -> NDArray[Any]:
        """Rows a class, int [K]."""
        codes = self.codes if self.members is None else self.members.codes
        return np.bincount(codes, minlength=len(self.classes))

    def present(self, mask: NDArray[Any]) -> set[int]:
        """The classes that the rows of a mask have, bool [N]."""
        found = self.codes[mask] if self.members is None else self.members.codes[mask[self.members.rows]]
        return set(np.unique(found).tolist())

    def without(self, classes: NDArray[Any]) -> LabelStatistics:
        """The census once these classes, bool [K], are out of the sets; they keep their numbers."""
        assert self.members is not None
        kept = ~classes[self.members.codes]
        gone = frozenset(name for name, out in zip(self.classes, classes, strict=True) if out)
        return replace(self, members=SetMembers(self.members.codes[kept], self.members.rows[kept]), gone=gone)


def collect_statistics(folder: Path, progress: ProgressReporter) -> LabelStatistics:
    """Read a dataset once, one row group at a time."""
    schema = schema_of(folder)
    form = label_kind_of(schema)
    seen: dict[str, int] = {}
    columns: dict[str, list[NDArray[Any]]] = {}
    start = 0
    for table in scan(folder):
        found = _labels(form, table, seen, start) | _others(schema.names, table)
        for name, array in found.items():
            columns.setdefault(name, []).append(array)
        start += table.num_rows
        progress.add(table.num_rows)
    whole = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    members = SetMembers(whole["members"], whole["rows"]) if form == "set" else None
    codes, given, texts = (whole[name] for name in ("codes", "given", "texts"))
    return LabelStatistics(list(seen), codes, given, texts, whole.get("groups"), members, whole.get("numbers"))


def _labels(form: str, table: Any, seen: dict[str, int], start: int) -> dict[str, NDArray[Any]]:
    """What the census notes of the labels; start: the number of the first row."""
    none = {"codes": np.zeros(table.num_rows, np.int32)}
    if form == "class":
        return {"codes": _codes(table["label"].combine_chunks(), seen)}
    if form == "set":
        sets = table["label"].combine_chunks()
        sizes = pc.list_value_length(sets).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(start, start + len(sets)), sizes)
        return none | {"members": _codes(sets.flatten(), seen), "rows": rows}
    if form == "number":
        return none | {"numbers": pc.list_element(table["label"], 0).to_numpy()}
    return none


def _others(names: list[str], table: Any) -> dict[str, NDArray[Any]]:
    size, texts = table.num_rows, _hashes(table["text"])
    given = _parts(table["part"]) if "part" in names else np.full(size, FREE, np.int8)
    groups = {"groups": _groups(table["group"], texts)} if "group" in names else {}
    return {"given": given, "texts": texts} | groups


def _codes(labels: Any, seen: dict[str, int]) -> NDArray[Any]:
    encoded = labels.dictionary_encode()
    here = [seen.setdefault(label, len(seen)) for label in encoded.dictionary.to_pylist()]
    numbers: NDArray[Any] = np.array(here, np.int32)[encoded.indices.to_numpy(zero_copy_only=False)]
    return numbers


def _parts(parts: Any) -> NDArray[Any]:
    return np.array([_CODES.get(part, FREE) for part in parts.to_pylist()], np.int8)


def _hashes(column: Any) -> NDArray[Any]:
    """64 bits of BLAKE2b each: among a million texts two share a hash by chance once in 37 million runs."""
    digests = b"".join(hashlib.blake2b((value or "").encode(), digest_size=8).digest() for value in column.to_pylist())
    return np.frombuffer(digests, np.uint64)


def _groups(column: Any, texts: NDArray[Any]) -> NDArray[Any]:
    """Rows without a group stand alone, but for rows of the same text."""
    alone = np.array([not (value or "").strip() for value in column.to_pylist()], bool)
    return np.where(alone, texts, _hashes(column))


def mask(parts: NDArray[Any], part: int) -> Any:
    """A boolean Arrow array, true where a row belongs to `part`."""
    return pa.array(pc.equal(pa.array(parts), part))
