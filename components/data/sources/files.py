"""Data files of a URI: find them, detect their format, and infer the split of each from its name."""

from __future__ import annotations

import difflib
import gzip
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from raypath.components.core.errors import DataError
from raypath.components.core.uris import local_files, local_path, scheme
from raypath.components.data.sources.samples import sample_files, sample_uri

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
WANTED = "csv, tsv, jsonl (each also .gz) or parquet"
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "development": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
}


@dataclass(frozen=True)
class DataFile:
    """One data file. split: train, valid or test if its name says so, else ""."""

    path: Path
    format: str
    split: str = ""

    @property
    def name(self) -> str:
        """Name used in messages."""
        return sample_uri(self.path) if self.format == "sample" else self.path.name


def find(uri: str, log: logging.Logger, copies: Path | None = None) -> list[DataFile]:
    """Find the data files of a URI, sorted by path; objects in s3:// are first downloaded to `copies`.

    Raises DataError if there are none.
    """
    if scheme(uri) == "s3://" and copies is not None:
        from raypath.components.data.sources.object_storage import S3Objects

        return find(S3Objects(uri).fetch(copies), log)
    if scheme(uri) == "sample://":
        return [DataFile(path, "sample", split) for path, split in sample_files(uri)]
    if scheme(uri) not in ("", "package://") or ("://" in uri and not uri.startswith(("file://", "package://"))):
        raise DataError(f"got {uri}, whose scheme is not supported", fix="download the files and give their path")
    root, paths = local_path(uri), local_files(uri)
    if not paths:
        raise _no_files(uri, root)
    _check_links(paths, root)
    known = [path for path in paths if format_of(path)]
    if not known:
        raise DataError(f"{paths[0].name} has an unknown extension; wanted {WANTED}", fix="convert or rename it")
    if len(known) < len(paths):
        skipped = [path.name for path in paths if not format_of(path)]
        log.warning("ignored %d files that are not %s: %s", len(skipped), WANTED, ", ".join(skipped[:5]))
    return _with_splits(known, root)


def _check_links(paths: list[Path], root: Path) -> None:
    """Raise DataError for a file of a folder or a glob that is a link to elsewhere; a file that is named may be one."""
    if paths == [root]:
        return
    top = next(folder for folder in (root, *root.parents) if folder.is_dir()).resolve()
    for path in paths:
        if not path.resolve().is_relative_to(top):
            raise DataError(f"{path} is a link that leads outside of {top}", fix="copy the file, or name it itself")


def check_exists(uris: Iterable[str]) -> None:
    """Raise DataError for the first path or package URI without a file; other schemes are not checked."""
    for uri in uris:
        other = scheme(uri) != "package://" and (scheme(uri) or "://" in uri.removeprefix("file://"))
        if not other and not local_files(uri):
            raise _no_files(uri, local_path(uri))


def format_of(path: Path) -> str:
    """Detect csv, tsv, json or parquet by the extension; "" for an unknown one."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        kind = FORMATS.get(suffixes[-2], "") if len(suffixes) > 1 else ""
        return "" if kind == "parquet" else kind
    return FORMATS.get(suffixes[-1], "") if suffixes else ""


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressed if it ends in .gz."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _with_splits(paths: list[Path], root: Path) -> list[DataFile]:
    """Infer splits from names (train.csv, test-00001.parquet, train/a.csv): for all files, or for none."""
    if len(paths) == 1:
        return [DataFile(paths[0], format_of(paths[0]))]
    splits = [_split_of(path, root) for path in paths]
    if any(splits) and not all(splits):
        unnamed = paths[splits.index("")].name
        raise DataError(
            f"{unnamed} names neither train, valid nor test, but other files in its folder do",
            fix="rename or move it, or read the files one by one with -s read.uri=, read.valid= and read.test=",
        )
    if any(splits) and "train" not in splits:
        splits = [""] * len(splits)
    return [DataFile(path, format_of(path), split) for path, split in zip(paths, splits, strict=True)]


def _split_of(path: Path, root: Path) -> str:
    names = path.relative_to(root).parts if path.is_relative_to(root) else (path.name,)
    for name in names:
        words = [word for word in re.split(r"[^a-z]+", name.lower().split(".")[0]) if word]
        for word in words[:1] + words[-1:]:
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return ""


def _no_files(uri: str, root: Path) -> DataError:
    if root.is_dir():
        return DataError(f"folder {uri} has no files; wanted {WANTED}", fix="put the data there or correct the path")
    try:
        siblings = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
    except OSError:
        siblings = []
    near = difflib.get_close_matches(root.name, siblings, n=1)
    fix = f"did you mean {root.parent / near[0]}?" if near else "correct the path"
    return DataError(f"no file at {uri}; wanted a file, a folder or a glob", fix=fix)
