"""Class names that Hugging Face's `datasets` keeps in a schema's metadata: the column itself has their numbers."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.data.columns.schema import Columns
from raypath.components.data.sources.data_file import DataFile

ClassNames = dict[str, list[str]]


def class_names(schema: pa.Schema, columns: Columns) -> ClassNames:
    """Return the class names of the columns that have any; none for those that are to be numbers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: _names(feature) for name, feature in features.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    numbers = {column.name for column in columns.inputs if column.kind not in ("text", "category", "set")}
    if columns.kind is LabelKind.NUMBER or columns.one_hot:
        numbers |= set(columns.labels)
    return {name: names for name, names in found.items() if names and name not in numbers}


def _names(feature: Any) -> list[str]:
    """Return the names of a ClassLabel, or of a list of them."""
    if isinstance(feature, list):
        return _names(feature[0]) if len(feature) == 1 else []
    if not isinstance(feature, dict):
        return []
    if feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature.get("names") or []]
    return _names(feature.get("feature"))


def with_names(file: DataFile, column: Any, names: list[str] | None, row: int) -> Any:
    """Replace class numbers by names; -1 is a missing label. Raises DataError for a number without a name."""
    dtype = column.type
    if names is None or not (pa.types.is_integer(dtype) or (_is_list(dtype) and pa.types.is_integer(dtype.value_type))):
        return column
    if _is_list(dtype):
        chunks = [_named_lists(file, chunk, names, row) for chunk in column.chunks]
        return pa.chunked_array(chunks, pa.list_(pa.string()))
    return pa.chunked_array([_named(file, chunk, names, row) for chunk in column.chunks], pa.string())


def _is_list(dtype: Any) -> bool:
    return bool(pa.types.is_list(dtype) or pa.types.is_large_list(dtype))


def _named_lists(file: DataFile, lists: Any, names: list[str], row: int) -> Any:
    # Python lists, since offsets of slices and nulls are easy to get wrong; sets are parsed one by one anyway.
    numbers = pa.array([number for each in lists.to_pylist() for number in each or []], pa.int64())
    found = iter(_named(file, numbers, names, row).to_pylist())
    values = [None if each is None else [next(found) for _ in each] for each in lists.to_pylist()]
    return pa.array(values, pa.list_(pa.string()))


def _named(file: DataFile, numbers: Any, names: list[str], row: int) -> Any:
    known = pc.if_else(pc.equal(numbers, -1), None, numbers.cast(pa.int64()))
    outside = pc.any(pc.or_(pc.less(known, 0), pc.greater_equal(known, len(names)))).as_py()
    if outside:
        what = f"{file.name} has a class number without a name, in row {row} or later; wanted 0 to {len(names) - 1}"
        raise DataError(what, fix="write the dataset again with the names of all its classes")
    return pa.array(names, pa.string()).take(known)
