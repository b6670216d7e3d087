"""One data file to read: its path, format, split and the settings of its format."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from raypath.components.core.errors import DataError
from raypath.components.core.uris import DELTA_LOG, local_files

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".xlsx": "excel",
    ".xlsm": "excel",
}
COMPRESSED = (".gz", ".zst", ".bz2")
"""Suffixes of a compressed text file; `.zip` holds one or several files."""
WANTED = "csv, tsv, json, jsonl (each also .gz, .zst, .bz2 or in a .zip), parquet, arrow or xlsx"
_TEXT = ("csv", "tsv", "json")


@dataclass(frozen=True)
class FileSettings:
    """Settings of the formats, as in ReadParams; "" for a value that is detected."""

    encoding: str = "utf-8"
    delimiter: str = ""
    quotes: str = "standard"
    sheet: str = ""
    query: str = ""


class RowGroups(NamedTuple):
    """Row groups `first` to `end` of a Parquet file. row: number of their first row, from 1; bytes: in the file."""

    first: int
    end: int
    row: int
    bytes: int


class SourceObject(NamedTuple):
    """Object in a bucket of which a file is a copy."""

    uri: str
    """s3://, gs:// or az://BUCKET/KEY."""
    size: int
    tag: str
    """As StoredObject.tag."""


@dataclass(frozen=True)
class DataFile:
    """One data file, a folder that is read as one (texts, a Delta table), or a query of a database.

    split: train, valid or test if its name says so, else "". member: the file's name in the archive `path`. url: of a
    database. title: name in messages. stamp: size and modification time when the file was found. version: of a Delta
    table. groups: the part of a large Parquet file. source: the object of which it is a copy.
    """

    path: Path
    format: str
    split: str = ""
    settings: FileSettings = field(default_factory=FileSettings)
    member: str = ""
    url: str = ""
    title: str = ""
    stamp: tuple[int, int] | None = None
    version: int | None = None
    groups: RowGroups | None = None
    source: SourceObject | None = None

    @property
    def name(self) -> str:
        """Name used in messages."""
        return self.title or self.url or (f"{self.path.name}/{self.member}" if self.member else self.path.name)

    @property
    def size(self) -> int:
        """Bytes on disk; 0 for a database."""
        if self.groups is not None:
            return self.groups.bytes
        return 0 if self.url else self.path.stat().st_size

    def stat(self) -> tuple[int, int] | None:
        """Return the present size and modification time; of a folder of texts a digest of those of all its files.

        None for a Delta table, whose versions do not change, and a database, whose query sees one state.
        """
        if self.format == "texts":
            return _texts_stat(self.path)
        if self.url or not self.path.is_file():
            return None
        stat = self.path.stat()
        return stat.st_size, stat.st_mtime_ns

    def check_unchanged(self, stamp: tuple[int, int] | None) -> None:
        """Raise DataError if the file is no longer the one that had this stamp."""
        if stamp is not None and self.stat() != stamp:
            fix = "run the command again when nothing writes to the file"
            raise DataError(f"{self.name} changed while it was read", fix=fix)


def text_files(folder: Path) -> list[Path]:
    """Return the visible .txt files below a folder, sorted."""
    return [path for path in local_files(str(folder)) if path.suffix.lower() == ".txt"]


def _texts_stat(folder: Path) -> tuple[int, int]:
    digest, size = hashlib.sha256(), 0
    for path in text_files(folder):
        stat = path.stat()
        size += stat.st_size
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return size, int.from_bytes(digest.digest()[:8])


def newest_version(table: Path) -> int:
    """Return the newest version of a Delta table: the largest number of a file in its log."""
    found = (re.match(r"(\d{20})\.", path.name) for path in (table / DELTA_LOG).iterdir())
    return max((int(match[1]) for match in found if match), default=0)


def format_of(path: Path) -> str:
    """Detect csv, tsv, json, parquet, arrow, excel or zip by the extension; "" for an unknown one."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes[-1:] == [".zip"]:
        return "zip"
    if suffixes and suffixes[-1] in COMPRESSED:
        kind = FORMATS.get(suffixes[-2], "") if len(suffixes) > 1 else ""
        return kind if kind in _TEXT else ""
    return FORMATS.get(suffixes[-1], "") if suffixes else ""
