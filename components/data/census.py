"""What a dataset is like, a few bytes a row: the class, the given part, a hash of the group and one of the text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.data.assign import FREE, NAMES
from components.data.pulse import Pulse
from components.data.tables import scan, schema_of

_CODES = {name: code for code, name in NAMES.items()}


@dataclass(frozen=True)
class Census:
    """Arrays of N rows in row order.

    classes: the labels in the order they were met. codes: int32 [N], index in `classes`. given: int8 [N], FREE or a
    part. texts: uint64 [N], a hash. groups: uint64 [N], a hash; None without groups.
    """

    classes: list[str]
    codes: NDArray[Any]
    given: NDArray[Any]
    texts: NDArray[Any]
    groups: NDArray[Any] | None


def census(folder: Path, pulse: Pulse) -> Census:
    """Read a dataset once, one row group at a time."""
    names = schema_of(folder).names
    seen: dict[str, int] = {}
    columns: dict[str, list[NDArray[Any]]] = {"codes": [], "given": [], "texts": [], "groups": []}
    for table in scan(folder):
        size = table.num_rows
        columns["codes"].append(_codes(table["label"], seen) if "label" in names else np.zeros(size, np.int32))
        columns["given"].append(_parts(table["part"]) if "part" in names else np.full(size, FREE, np.int8))
        columns["texts"].append(_hashes(table["text"]))
        if "group" in names:
            columns["groups"].append(_groups(table["group"], columns["texts"][-1]))
        pulse.add(size)
    whole = {name: np.concatenate(arrays) if arrays else None for name, arrays in columns.items()}
    codes, given, texts = whole["codes"], whole["given"], whole["texts"]
    assert codes is not None
    assert given is not None
    assert texts is not None
    return Census(list(seen), codes, given, texts, whole["groups"])


def _codes(labels: Any, seen: dict[str, int]) -> NDArray[Any]:
    encoded = labels.combine_chunks().dictionary_encode()
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
