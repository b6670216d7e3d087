"""Checks of Arrow data before it is used: Arrow trusts the lengths and offsets that a file states.

A compressed batch of a few kilobytes may stand for gigabytes, rows may share one long text, and offsets may lead out of
the file's memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.data.formats.limits import BATCH_BYTES, too_long
from raypath.components.data.sources.data_file import DataFile
from raypath.components.data.streaming.parquet import GROUP_BYTES, GROUP_ROWS

INFLATION = 1_000
"""Uncompressed bytes per compressed byte above which large data is rejected; text has 3 to 20."""
_ELEMENT = 64
"""Bytes in memory of an element of a list."""
_AGAIN = "copy or write the file again"


def check_compression(file: DataFile, source: Any) -> None:
    """Raise DataError if a compressed batch of an IPC stream expands beyond the limits. Nothing is decompressed."""
    messages = pa.ipc.MessageReader.open_stream(source)
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            return
        if message.type in ("record batch", "dictionary"):
            try:
                unpacked = _unpacked_bytes(message.metadata.to_pybytes(), message.body, message.type)
            except (struct.error, IndexError):
                raise DataError(f"{file.name} is not an Arrow file, or is truncated", fix=_AGAIN) from None
            if unpacked > GROUP_BYTES or (unpacked > BATCH_BYTES and unpacked > INFLATION * message.body.size):
                what = f"{file.name} has a batch that expands to {unpacked / 2**20:,.0f} MiB"
                raise DataError(what, fix="write it in smaller batches, or as csv or jsonl")


def _unpacked_bytes(head: bytes, body: Any, kind: str) -> int:
    """Bytes of a message's buffers when they are decompressed; 0 if they are not compressed."""
    message = struct.unpack_from("<I", head)[0]
    batch = _reference(head, message, 2)
    if kind == "dictionary":
        batch = _reference(head, batch, 1)
    if not _field(head, batch, 3):
        return 0
    vector = _reference(head, batch, 2)
    total = 0
    for number in range(struct.unpack_from("<I", head, vector)[0]):
        offset, length = struct.unpack_from("<qq", head, vector + 4 + 16 * number)
        if length:
            # The first eight bytes of a buffer are its length when it is decompressed; -1 if it is not compressed.
            stated = struct.unpack_from("<q", body, offset)[0]
            total += length if stated == -1 else max(stated, 0)
    return total


def _field(head: bytes, table: int, number: int) -> int:
    """Position of a field of a FlatBuffers table, 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", head, table)[0]
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", head, vtable + at)[0] if at < struct.unpack_from("<H", head, vtable)[0] else 0
    return table + offset if offset else 0


def _reference(head: bytes, table: int, number: int) -> int:
    """Position of the table or vector that a field refers to."""
    at = _field(head, table, number)
    if not at:
        raise IndexError
    return at + int(struct.unpack_from("<I", head, at)[0])


def check_structure(file: DataFile, batch: pa.RecordBatch) -> None:
    """Raise DataError for offsets that lead outside, and for types whose rows may share their values."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if not _is_readable(column.type):
            what = f"column {name} of {file.name} has the type {str(column.type)[:100]}, which is not read"
            raise DataError(what, fix="write it as strings, numbers or lists of them")
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            # Invalid text of a text column has an error with its row later; its offsets were checked before.
            if "UTF8" not in str(error) or not _is_text(column.type):
                raise DataError(f"{file.name} has invalid data in column {name}", fix=_AGAIN) from None


def _is_readable(dtype: pa.DataType, inside: bool = False) -> bool:
    if types.is_list(dtype) or types.is_large_list(dtype) or types.is_fixed_size_list(dtype):
        return _is_readable(dtype.value_type, inside=True)
    if types.is_struct(dtype) or types.is_map(dtype):
        return all(_is_readable(dtype.field(n).type, inside=True) for n in range(dtype.num_fields))
    if types.is_dictionary(dtype):
        return not inside and (_is_text(dtype.value_type) or types.is_primitive(dtype.value_type))
    if types.is_string_view(dtype):
        return not inside
    nested = types.is_nested(dtype) or types.is_run_end_encoded(dtype) or isinstance(dtype, pa.BaseExtensionType)
    return not nested and not types.is_binary_view(dtype)


def _is_text(dtype: pa.DataType) -> bool:
    return bool(types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype))


def slices(file: DataFile, batch: pa.RecordBatch, row: int) -> Iterator[tuple[int, int]]:
    """Yield (first, rows) of slices whose values, each row with its own, have at most BATCH_BYTES.

    Raises DataError for a row that has more. row: number of the first row.
    """
    sizes = sum((_row_bytes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    if len(sizes) and sizes.max() > BATCH_BYTES:
        raise too_long(file, row + int(sizes.argmax()))
    ends, first = np.cumsum(sizes), 0
    while first < batch.num_rows:
        before = ends[first - 1] if first else 0
        end = int(np.searchsorted(ends, before + BATCH_BYTES, side="right"))
        end = max(first + 1, min(end, first + GROUP_ROWS))
        yield first, end - first
        first = end


def _row_bytes(column: pa.Array) -> Array:
    """Bytes of the text, or about those of the list, in each row, int64 [N]."""
    dtype = column.type
    if types.is_dictionary(dtype):
        if not _is_text(dtype.value_type):
            return np.zeros(len(column), np.int64)
        lengths = pa.array(_row_bytes(column.dictionary))
        return _filled(lengths.take(column.indices))
    if types.is_string_view(dtype):
        views = np.frombuffer(column.buffers()[1], np.int32)[column.offset * 4 : (column.offset + len(column)) * 4 : 4]
        return np.asarray(np.where(column.is_valid().to_numpy(zero_copy_only=False), views, 0), np.int64)
    if types.is_string(dtype) or types.is_large_string(dtype) or types.is_binary(dtype) or types.is_large_binary(dtype):
        return _filled(pc.binary_length(column))
    if types.is_list(dtype) or types.is_large_list(dtype) or types.is_fixed_size_list(dtype):
        elements = _filled(pc.list_value_length(column)) * _ELEMENT
        return np.asarray(elements + column.nbytes // max(len(column), 1), np.int64)
    return np.full(len(column), column.nbytes // max(len(column), 1), np.int64)


def _filled(lengths: pa.Array) -> Array:
    return np.asarray(lengths.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))
