"""What libraries raise on a damaged file, turned into a DataError that says where, and quotes no row."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from raypath.components.core.errors import DataError
from raypath.components.data.sources.files import DataFile, open_bytes

BLOCK = 1 << 20
"""Bytes read at once; a longer CSV row cannot be read. With 8 MiB the allocator kept 300 MiB, with this 100."""


@contextmanager
def readable(file: DataFile) -> Iterator[None]:
    """Around everything that touches a user's file. Raises DataError."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{file.name} is truncated or damaged gzip", fix="copy or compress the file again") from None
    except UnicodeDecodeError:
        raise not_utf8(file) from None
    except pa.ArrowInvalid as error:
        raise _unreadable(file, str(error)) from None
    except OSError as error:
        reason = error.strerror or "damaged"
        raise DataError(f"{file.name} cannot be read ({reason})", fix="check the file and its permissions") from None


def _unreadable(file: DataFile, message: str) -> DataError:
    if "UTF8" in message:
        return not_utf8(file)
    if file.format == "parquet":
        return DataError(f"{file.name} is no Parquet file, or is truncated", fix="copy or write the file again")
    if "straddling" in message:
        return DataError(
            f"{file.name} has a row longer than {BLOCK >> 20} MiB: most likely a quote that is never closed",
            fix="close the quote, or write the file as jsonl",
        )
    return DataError(f"{file.name} cannot be parsed as {file.format}", fix="write it again as csv, jsonl or parquet")


def not_utf8(file: DataFile) -> DataError:
    """Where the first byte stands that is no UTF-8."""
    if file.format == "parquet":
        return DataError(f"{file.name} holds text that is not UTF-8", fix="write the file again from UTF-8 text")
    with open_bytes(file.path) as raw:
        if raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return DataError(f"{file.name} is UTF-16; wanted UTF-8", fix=f"iconv -f UTF-16 -t UTF-8 {file.name}")
    offset, line = _bad_byte(file)
    return DataError(
        f"{file.name} is not UTF-8 at byte {offset} (line {line})",
        fix=f"convert it, for example iconv -f GB18030 -t UTF-8 {file.name}",
    )


def _bad_byte(file: DataFile) -> tuple[int, int]:
    """Offset from 0 and line from 1 of the first invalid byte; the end of the file when none is found."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1
    with open_bytes(file.path) as raw:
        while chunk := raw.read(1 << 20):
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                at = max(error.start - held, 0)
                return offset + error.start - held, line + chunk[:at].count(b"\n")
            offset += len(chunk)
            line += chunk.count(b"\n")
    return offset, line
