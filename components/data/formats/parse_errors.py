"""Translate parse errors of a user's file to DataError with the location; row contents are never quoted."""

from __future__ import annotations

import codecs
import gzip
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from raypath.components.core.errors import DataError
from raypath.components.data.sources.files import DataFile, open_bytes

BLOCK = 1 << 20
"""Bytes per read; a longer CSV row cannot be read. Memory grows with it: 8 MiB kept 300 MiB allocated, 1 MiB 100."""


@contextmanager
def readable(file: DataFile) -> Iterator[None]:
    """Wrap every access to a user's file. Raises DataError."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{file.name} is truncated or corrupt gzip", fix="copy or compress the file again") from None
    except UnicodeDecodeError:
        raise not_utf8(file) from None
    except (pa.ArrowCapacityError, MemoryError):
        raise DataError(f"{file.name} has values too large to read", fix="divide them into shorter rows") from None
    except pa.ArrowException as error:
        raise _unreadable(file, str(error)) from None
    except OSError as error:
        reason = error.strerror or "corrupt"
        raise DataError(f"{file.name} cannot be read ({reason})", fix="check the file and its permissions") from None


def _unreadable(file: DataFile, message: str) -> DataError:
    if "UTF8" in message:
        return not_utf8(file)
    if file.format == "parquet":
        return DataError(f"{file.name} is not a Parquet file, or is truncated", fix="copy or write the file again")
    if "straddling" in message:
        return DataError(
            f"{file.name} has a row longer than {BLOCK >> 20} MiB, probably because of an unclosed quote",
            fix="close the quote, or write the file as jsonl",
        )
    return DataError(f"{file.name} cannot be parsed as {file.format}", fix="write it again as csv, jsonl or parquet")


def not_utf8(file: DataFile) -> DataError:
    """Build the error for a file that is not UTF-8, with the position of the first invalid byte."""
    if file.format == "parquet":
        return DataError(f"{file.name} has text that is not UTF-8", fix="write the file again from UTF-8 text")
    with open_bytes(file.path) as raw:
        if raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return DataError(f"{file.name} is UTF-16; wanted UTF-8", fix=_convert(file, "UTF-16"))
    offset, line = _invalid_byte(file)
    return DataError(
        f"{file.name} is not UTF-8 at byte {offset} (line {line})",
        fix=f"convert it from the encoding it was saved in; for Windows-1252, as Excel saves CSV in Western Europe: "
        f"{_convert(file, 'WINDOWS-1252')}",
    )


def _convert(file: DataFile, encoding: str) -> str:
    """Return the shell command that writes a UTF-8 copy."""
    unpacked = file.name.removesuffix(".gz")
    source = f"zcat {shlex.quote(file.name)} | iconv" if unpacked != file.name else "iconv"
    name = "" if unpacked != file.name else f" {shlex.quote(file.name)}"
    return f"{source} -f {encoding} -t UTF-8{name} > {shlex.quote(f'utf8-{unpacked}')}"


def _invalid_byte(file: DataFile) -> tuple[int, int]:
    """Offset from 0 and line from 1 of the first invalid byte; the end of the file if there is none."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1
    with open_bytes(file.path) as raw:
        while chunk := raw.read(1 << 20):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                at = max(error.start - pending, 0)
                return offset + error.start - pending, line + chunk[:at].count(b"\n")
            offset += len(chunk)
            line += chunk.count(b"\n")
    return offset, line
