"""Object of a bucket as a seekable file, of which only the blocks that are read are transferred."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO, cast

BLOCK = 2 << 20
"""Bytes of a request at least: small reads nearby, such as a column of neighbouring row groups, need no other."""


def open_ranges(read: Callable[[int, int], bytes], size: int) -> BinaryIO:
    """Return a file of `size` bytes. read: returns the bytes of (start, length)."""
    return cast(BinaryIO, io.BufferedReader(_Ranges(read, size), BLOCK))


class _Ranges(io.RawIOBase):
    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        if length:
            buffer[:length] = self._read(self._at, length)
        self._at += length
        return length
