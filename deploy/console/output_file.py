"""Files that a command writes where its user says."""

from __future__ import annotations

from pathlib import Path

from raypath.components.core.errors import ParamsError
from raypath.components.core.files import write_atomically


def write_file(file: Path, text: str) -> None:
    """Write a file whole or not at all; a pipe or a terminal is written to. Raises ParamsError where it cannot be."""
    try:
        if file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")
        else:
            write_atomically(file, text)
    except OSError as error:
        raise ParamsError(f"cannot write {file}: {error.strerror}", fix="choose another file") from None
