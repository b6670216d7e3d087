"""Translate parse errors of a user's file to DataError with the location; row contents are never quoted."""

from __future__ import annotations

import codecs
import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from raypath.components.core.errors import DataError
from raypath.components.data.formats.encodings import invalid_byte, readings
from raypath.components.data.sources.data_file import COMPRESSED, DataFile
from raypath.components.data.sources.streams import open_encoded

BLOCK = 1 << 20
"""Bytes per read; a longer CSV row cannot be read. Memory grows with it: 8 MiB kept 300 MiB allocated, 1 MiB 100."""
_TEXT = ("csv", "tsv", "json", "texts")


@contextmanager
def readable(file: DataFile) -> Iterator[None]:
    """Wrap every access to a user's file. Raises DataError."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error):
        raise _corrupt(file) from None
    except UnicodeDecodeError:
        raise invalid_text(file) from None
    except (pa.ArrowCapacityError, MemoryError):
        raise DataError(f"{file.name} has values too large to read", fix="divide them into shorter rows") from None
    except pa.ArrowException as error:
        raise _unreadable(file, str(error)) from None
    except OSError as error:
        if error.strerror is None and file.path.suffix.lower() in COMPRESSED:
            raise _corrupt(file) from None
        reason = error.strerror or "corrupt"
        raise DataError(f"{file.name} cannot be read ({reason})", fix="check the file and its permissions") from None


def _corrupt(file: DataFile) -> DataError:
    suffix = file.path.suffix.lower()
    kind = {".gz": "gzip", ".xlsx": "Excel"}.get(suffix, suffix[1:])
    return DataError(f"{file.name} is truncated or corrupt {kind}", fix="copy or compress the file again")


def _unreadable(file: DataFile, message: str) -> DataError:
    if "UTF8" in message and file.format in _TEXT:
        return invalid_text(file)
    if file.format not in _TEXT:
        kind = {"parquet": "a Parquet file", "arrow": "an Arrow file"}.get(file.format, f"a {file.format} file")
        return DataError(f"{file.name} is not {kind}, or is truncated", fix="copy or write the file again")
    if "straddling" in message:
        return DataError(
            f"{file.name} has a row longer than {BLOCK >> 20} MiB, probably because of an unclosed quote",
            fix="close the quote, or write the file as jsonl",
        )
    return DataError(f"{file.name} cannot be parsed as {file.format}", fix="write it again as csv, jsonl or parquet")


def invalid_text(file: DataFile) -> DataError:
    """Build the error for text in another encoding: its position, and what other encodings make of it."""
    offset, line = invalid_byte(file)
    raw, encoding, _ = open_encoded(file)
    raw.close()
    what = f"{file.name} is not {encoding.upper()} at byte {offset} (line {line})"
    marked = codecs.lookup(file.settings.encoding).name != encoding
    found = {} if marked else readings(file, offset)
    if not found:
        return DataError(what, fix="copy it again, or name its encoding with -s read.encoding=NAME")
    letters: dict[str, list[str]] = {}
    for name, letter in found.items():
        letters.setdefault(letter, []).append(name)
    choices = [f"{letter} in {' or '.join(names[:2])}" for letter, names in list(letters.items())[:4]]
    what += f", where it reads {', '.join(choices)}"
    return DataError(what, fix=f"set the encoding that it was saved in, such as -s read.encoding={next(iter(found))}")
