"""Label statistics: a few bytes per row with its class, its prescribed split, its time, and hashes of its group and
text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.arrays import Array
from raypath.components.core.columns import Column
from raypath.components.core.context import Context
from raypath.components.core.labels import LabelKind
from raypath.components.data.rendering import contents
from raypath.components.data.splits.assign import FREE, SPLITS
from raypath.components.data.streaming.parquet import label_kind_of, schema_of
from raypath.components.data.streaming.progress import ProgressReporter
from raypath.components.data.streaming.shard_files import shard_files
from raypath.components.data.streaming.stream import stream_tables

_COMPACT = ("given", "texts", "groups", "times")
_CODES = {name: code for code, name in SPLITS.items()}


@dataclass(frozen=True)
class SetMembers:
    """Classes of the sets of all rows, as M pairs: codes int32 [M], index in `classes`; rows int64 [M], sorted."""

    codes: Array
    rows: Array


@dataclass(frozen=True)
class LabelStatistics:
    """Arrays of N rows in row order.

    classes: the labels in order of appearance. codes: int32 [N], index in `classes`, 0 if a row has no single class.
    given: int8 [N], the prescribed split, or FREE. texts: uint64 [N], a hash of the inputs. groups: uint64 [N], a hash;
    None without groups. times: int64 [N], microseconds; None without a column of times. members: None unless labels are
    sets. numbers: the first target, float64 [N]; None unless labels are numbers. removed: classes that were removed
    from the sets.
    """

    classes: list[str]
    codes: Array
    given: Array
    texts: Array
    groups: Array | None
    members: SetMembers | None = None
    numbers: Array | None = None
    removed: frozenset[str] = frozenset()
    times: Array | None = None

    @property
    def has_classes(self) -> bool:
        """True if rows have classes, one each or sets."""
        return bool(self.classes) or self.members is not None

    def counts(self) -> Array:
        """Rows per class, int [K]."""
        codes = self.codes if self.members is None else self.members.codes
        return np.bincount(codes, minlength=len(self.classes))

    def present(self, mask: Array) -> set[int]:
        """Return the classes of the rows in a mask, bool [N]."""
        codes = self.codes[mask] if self.members is None else self.members.codes[mask[self.members.rows]]
        return set(np.unique(codes).tolist())

    def without_classes(self, classes: Array) -> LabelStatistics:
        """Remove these classes, bool [K], from the sets; the codes of the others do not change."""
        assert self.members is not None
        kept = ~classes[self.members.codes]
        removed = frozenset(name for name, out in zip(self.classes, classes, strict=True) if out)
        return replace(self, members=SetMembers(self.members.codes[kept], self.members.rows[kept]), removed=removed)


def collect_statistics(
    folder: Path, progress: ProgressReporter, ctx: Context, columns: Sequence[Column] = ()
) -> LabelStatistics:
    """Scan a dataset once: inputs and groups are hashed by Ray Data, of small data in this process."""
    schema = schema_of(folder)
    kind = label_kind_of(schema)
    classes: dict[str, int] = {}
    blocks: dict[str, list[Array]] = {}
    start = 0
    with closing(stream_tables(shard_files(folder), ctx, partial(_compact, inputs=columns))) as tables:
        for table in tables:
            others = {name: table[name].to_numpy() for name in _COMPACT if name in table.column_names}
            for name, array in (_label_arrays(kind, table, classes, start) | others).items():
                blocks.setdefault(name, []).append(array)
            start += table.num_rows
            progress.add(table.num_rows)
    joined = {name: np.concatenate(arrays) for name, arrays in blocks.items()}
    members = SetMembers(joined["members"], joined["rows"]) if kind is LabelKind.SET else None
    codes, given, texts = (joined[name] for name in ("codes", "given", "texts"))
    return LabelStatistics(
        list(classes),
        codes,
        given,
        texts,
        joined.get("groups"),
        members,
        joined.get("numbers"),
        times=joined.get("times"),
    )


def _label_arrays(kind: LabelKind, table: Any, classes: dict[str, int], start: int) -> dict[str, Array]:
    """Arrays of the labels of one table. start: the number of the first row."""
    none = {"codes": np.zeros(table.num_rows, np.int32)}
    if kind is LabelKind.CLASS:
        return {"codes": _codes(table["label"].combine_chunks(), classes)}
    if kind is LabelKind.SET:
        sets = table["label"].combine_chunks()
        sizes = pc.list_value_length(sets).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(start, start + len(sets)), sizes)
        return none | {"members": _codes(sets.flatten(), classes), "rows": rows}
    if kind is LabelKind.NUMBER:
        return none | {"numbers": pc.list_element(table["label"], 0).to_numpy()}
    return none


def _compact(table: Any, inputs: Sequence[Column]) -> Any:
    """Replace all columns but `label` by numbers: the prescribed split, and hashes of inputs and group."""
    names, texts = table.column_names, _hashes(contents(table, inputs))
    columns = {"label": table["label"]} if "label" in names else {}
    columns["given"] = _splits(table["split"]) if "split" in names else np.full(table.num_rows, FREE, np.int8)
    columns["texts"] = texts
    if "group" in names:
        columns["groups"] = _groups(table["group"], texts)
    if "time" in names:
        columns["times"] = table["time"].cast(pa.int64()).to_numpy()
    return pa.table(columns)


def _codes(labels: Any, classes: dict[str, int]) -> Array:
    encoded = labels.dictionary_encode()
    local = [classes.setdefault(label, len(classes)) for label in encoded.dictionary.to_pylist()]
    codes: Array = np.array(local, np.int32)[encoded.indices.to_numpy(zero_copy_only=False)]
    return codes


def _splits(names: Any) -> Array:
    return np.array([_CODES.get(name, FREE) for name in names.to_pylist()], np.int8)


def _hashes(column: Any) -> Array:
    """Hash values to 64 bits of BLAKE2b: for a million texts, the probability of any collision is 1 in 37 million."""
    digests = b"".join(hashlib.blake2b((value or "").encode(), digest_size=8).digest() for value in column.to_pylist())
    return np.frombuffer(digests, np.uint64)


def _groups(column: Any, texts: Array) -> Array:
    """Hash groups; a row without one forms a group with the rows of the same text."""
    ungrouped = np.array([not (value or "").strip() for value in column.to_pylist()], bool)
    return np.where(ungrouped, texts, _hashes(column))


def contains(known: Array, values: Array) -> Array:
    """Return True for each value that is in `known`, with memory for the sorted `known` alone."""
    ordered = np.unique(known)
    found = np.zeros(len(values), bool)
    for start in range(0, len(values) if len(ordered) else 0, 1 << 20):
        chunk = values[start : start + (1 << 20)]
        places = np.minimum(np.searchsorted(ordered, chunk), len(ordered) - 1)
        found[start : start + len(chunk)] = ordered[places] == chunk
    return found


def split_mask(splits: Array, split: int) -> Any:
    """Return a boolean Arrow array, true for rows of `split`."""
    return pa.array(pc.equal(pa.array(splits), split))
