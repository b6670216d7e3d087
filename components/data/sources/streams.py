"""Byte streams of data files: decompressed, and converted to UTF-8 without a byte order mark."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import zipfile
from typing import IO, Any, cast

from raypath.components.core.errors import DataError
from raypath.components.data.sources.data_file import DataFile

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks and their encodings; that of UTF-32 begins like that of UTF-16, so it comes first."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression in archives; of others `zipfile` decompresses all that it has read, which may be gigabytes."""
_CHUNK = 1 << 18
_START = 256
"""Bytes of a file's beginning that are looked at."""


def open_bytes(file: DataFile) -> IO[bytes]:
    """Open the text of a file as UTF-8, decompressed. Reading raises UnicodeDecodeError for invalid text."""
    raw, encoding, _ = open_encoded(file)
    if encoding == "utf-8":
        return raw
    return io.BufferedReader(cast(io.RawIOBase, _Utf8Stream(raw, encoding)), _CHUNK)


def open_encoded(file: DataFile) -> tuple[IO[bytes], str, int]:
    """Open the text of a file as it is encoded; returns the stream behind a byte order mark, the encoding, its offset.

    A byte order mark is certain, so that it precedes the setting.
    """
    raw = _decompressed(file)
    start = raw.peek(4)[:4]
    for mark, encoding in MARKS.items():
        if start.startswith(mark):
            raw.read(len(mark))
            return raw, encoding, len(mark)
    encoding = codecs.lookup(file.settings.encoding).name.removesuffix("-sig")
    if encoding == "utf-8":
        try:
            _check_zeros(raw.peek(_START)[:_START], file)
        except DataError:
            raw.close()
            raise
    return raw, encoding, 0


def _check_zeros(start: bytes, file: DataFile) -> None:
    """Raise DataError for what looks like UTF-16: zeros are every second byte of ASCII in it, and nowhere else."""
    zeros = [n for n, byte in enumerate(start) if byte == 0]
    if len(zeros) > 1 and len({n % 2 for n in zeros}) == 1:
        fix = f"set -s read.encoding={'utf-16-le' if zeros[0] % 2 else 'utf-16-be'}"
        raise DataError(f"{file.name} looks like UTF-16", fix=fix)


def _decompressed(file: DataFile) -> Any:
    if file.member:
        return io.BufferedReader(cast(io.RawIOBase, _open_member(file)), _CHUNK)
    suffix = file.path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(file.path)
    if suffix == ".bz2":
        return bz2.open(file.path)
    if suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(file.path)), "zstd"), _CHUNK)
    return file.path.open("rb")


def _open_member(file: DataFile) -> IO[bytes]:
    archive = zipfile.ZipFile(file.path)
    if archive.getinfo(file.member).compress_type not in METHODS:
        archive.close()
        raise DataError(f"{file.name} has an unsupported compression method", fix="write the zip again with deflate")
    try:
        return archive.open(file.member)
    except NotImplementedError:  # a RuntimeError too
        raise DataError(f"{file.name} uses an unsupported feature of zip", fix="write the zip again") from None
    except RuntimeError:
        raise DataError(f"{file.name} is encrypted", fix=f"extract it from {file.path.name}") from None


class _Utf8Stream(io.RawIOBase):
    """Convert a stream from another encoding to UTF-8."""

    def __init__(self, raw: IO[bytes], encoding: str) -> None:
        self._raw, self._decoder = raw, codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            chunk = self._raw.read(_CHUNK)
            self._ended = not chunk
            self._ready = self._decoder.decode(chunk, final=self._ended).encode()
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()
