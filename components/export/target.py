"""Folder of an export: new or empty, written under a temporary name and renamed when it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raypath.components.core.errors import ParamsError
from raypath.components.core.files import disk_full_as_store_error

Progress = Callable[[int, int], None]
"""Called with the bytes that are written and all bytes."""
CHUNK = 8 << 20


def check_target(folder: Path) -> None:
    """Raise ParamsError unless the folder is new, in a folder that exists, or empty."""
    try:
        if folder.is_dir():
            if any(folder.iterdir()):
                raise ParamsError(f"{folder} is not empty", fix="name a new folder")
        elif os.path.lexists(folder):
            raise ParamsError(f"{folder} is a file", fix="name a new folder")
        elif not folder.parent.is_dir():
            raise ParamsError(f"there is no folder {folder.parent}", fix="create it first")
    except OSError as error:
        raise ParamsError(f"cannot write {folder}: {error.strerror}", fix="name another folder") from None


@contextmanager
def new_target(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, flush its files to disk at the end and rename it to `folder`.

    After an error nothing is left. Raises ParamsError for a folder that cannot be written, StoreError for a full disk.
    """
    check_target(folder)
    place = folder.resolve()
    temporary = place.with_name(f".{place.name[:200]}.{secrets.token_hex(8)}")
    try:
        with disk_full_as_store_error(f"no space left for {folder}"):
            temporary.mkdir(mode=0o700)
            yield temporary
            for path in temporary.iterdir():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            if place.is_dir():
                place.rmdir()  # fails if somebody has put a file into it
            os.rename(temporary, place)
    except OSError as error:
        if not isinstance(error.filename, str) or not error.filename.startswith((str(temporary), str(place))):
            raise
        raise ParamsError(f"cannot write {folder}: {error.strerror}", fix="name another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_files(paths: list[Path], target: Path, progress: Progress) -> None:
    """Copy files into a folder, with their names; a link is followed."""
    total, done = sum(path.stat().st_size for path in paths), 0
    for path in paths:
        with open(path, "rb") as source, open(target / path.name, "xb") as copy:
            while block := source.read(CHUNK):
                copy.write(block)
                done += len(block)
                progress(done, total)
