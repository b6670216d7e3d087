"""Columns with one value a row, each in a file of its own, so that memory holds those in use only."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.conversations import ROLES
from raypath.components.inspection.minhash import BANDS
from raypath.components.inspection.texts.shapes import NAMES

TYPES: dict[str, Any] = {
    "present": bool,
    "texts": np.uint64,
    "codes": np.int32,
    "numbers": np.float64,
    "splits": np.int8,
    "words": np.int32,
    "lengths": np.int32,
    "languages": np.uint8,
    "personal": np.uint8,
    "messages": np.int32,
    **{f"role-{role}": np.int32 for role in ROLES},
    "traits": np.uint8,
    "prompts": np.uint64,
    "answers": np.uint64,
    "answer_words": np.int32,
    **{f"shape-{n}": np.float32 for n in range(len(NAMES))},
    **{f"band-{n:02d}": np.uint64 for n in range(BANDS)},
}
"""Types of the columns by name."""


class ColumnFiles:
    """Columns in a folder, which is emptied first; they can be read after `close`."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        self.folder = folder
        self._open: dict[str, IO[bytes]] = {}

    def append(self, name: str, values: Array) -> None:
        """Append values of a column, [N]."""
        if name not in self._open:
            self._open[name] = (self.folder / name).open("wb")
        self._open[name].write(np.ascontiguousarray(values, TYPES[name]).data)

    def close(self) -> None:
        """Finish writing. All files are closed, also where one cannot be written to the end, as on a full disk."""
        with contextlib.ExitStack() as stack:
            while self._open:
                stack.enter_context(self._open.popitem()[1])

    def read(self, name: str) -> Array:
        """Read a column, [N]."""
        return read(self.folder, name)


def read(folder: Path, name: str) -> Array:
    """Read a column of a folder, [N]; one to which nothing was appended has no values."""
    path = folder / name
    return np.fromfile(path, TYPES[name]) if path.exists() else np.zeros(0, TYPES[name])
