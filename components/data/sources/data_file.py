"""One data file to read: its path, format, split and the settings of its format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from raypath.components.core.errors import DataError
from raypath.components.data.sources.samples import sample_uri

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


@dataclass(frozen=True)
class DataFile:
    """One data file, a folder that is read as one (texts, a Delta table), or a query of a database.

    split: train, valid or test if its name says so, else "". member: the file's name in the archive `path`. url: of a
    database. title: name in messages. stamp: size and modification time when the file was found.
    """

    path: Path
    format: str
    split: str = ""
    settings: FileSettings = field(default_factory=FileSettings)
    member: str = ""
    url: str = ""
    title: str = ""
    stamp: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Name used in messages."""
        if self.format == "sample":
            return sample_uri(self.path)
        return self.title or self.url or (f"{self.path.name}/{self.member}" if self.member else self.path.name)

    @property
    def size(self) -> int:
        """Bytes on disk; 0 for a database."""
        return 0 if self.url else self.path.stat().st_size

    def stat(self) -> tuple[int, int] | None:
        """Return the present size and modification time; None for a folder and a database."""
        if self.url or not self.path.is_file():
            return None
        stat = self.path.stat()
        return stat.st_size, stat.st_mtime_ns

    def check_unchanged(self, stamp: tuple[int, int] | None) -> None:
        """Raise DataError if the file is no longer the one that had this stamp."""
        if stamp is not None and self.stat() != stamp:
            fix = "run the command again when nothing writes to the file"
            raise DataError(f"{self.name} changed while it was read", fix=fix)


def format_of(path: Path) -> str:
    """Detect csv, tsv, json, parquet, arrow, excel or zip by the extension; "" for an unknown one."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes[-1:] == [".zip"]:
        return "zip"
    if suffixes and suffixes[-1] in COMPRESSED:
        kind = FORMATS.get(suffixes[-2], "") if len(suffixes) > 1 else ""
        return kind if kind in _TEXT else ""
    return FORMATS.get(suffixes[-1], "") if suffixes else ""
