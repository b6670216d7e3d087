"""Data files of a URI: find them, detect their format, and infer the split of each from its name."""

from __future__ import annotations

import difflib
import logging
import re
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from raypath.components.core.errors import DataError
from raypath.components.core.uris import BUCKETS, is_sql, local_files, local_path, scheme, sqlite_path
from raypath.components.data.sources.data_file import (
    WANTED,
    DataFile,
    FileSettings,
    format_of,
    newest_version,
    text_files,
)
from raypath.components.data.sources.layouts import check_whole, data_paths, is_delta
from raypath.components.data.sources.samples import sample_files
from raypath.components.data.wording import plural, verb

__all__ = ["DataFile", "FileSettings", "check_exists", "find", "format_of"]
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
_DEFAULTS = FileSettings()


def find(
    uri: str, log: logging.Logger, copies: Path | None = None, settings: FileSettings = _DEFAULTS
) -> list[DataFile]:
    """Find the data files of a URI, sorted by path; objects in buckets are first downloaded to `copies`.

    Raises DataError if there are none.
    """
    if scheme(uri) in BUCKETS and copies is not None:
        from raypath.components.data.sources.object_storage import Objects

        objects = Objects(uri)
        found = find(objects.fetch(copies), log, None, settings)
        return [replace(file, source=objects.source_of(file.path)) for file in found]
    if scheme(uri) == "sample://":
        return [DataFile(path, "sample", split, settings, title=uri) for path, split in sample_files(uri)]
    if is_sql(uri):
        return [DataFile(Path(), "sql", "", settings, url=uri)]
    if scheme(uri) not in ("", "package://") or ("://" in uri and not uri.startswith(("file://", "package://"))):
        raise DataError(f"got {uri}, whose scheme is not supported", fix="download the files and give their path")
    root = local_path(uri)
    if is_delta(root):
        _check_links([*root.rglob("*")], root)
        return [DataFile(root, "delta", "", settings, version=newest_version(root))]
    paths = local_files(uri)
    if not paths:
        raise _no_files(uri, root)
    _check_links(paths, root)
    check_whole(paths, root)
    return _with_splits(_data_files(paths, root, settings, log), root)


def _data_files(paths: list[Path], root: Path, settings: FileSettings, log: logging.Logger) -> list[DataFile]:
    """Return the files of known formats, those in archives included. Raises DataError if there are none."""
    known = [path for path in data_paths(paths) if format_of(path)]
    if not known:
        folders = _text_folders(root) if root.is_dir() else []
        if folders:
            found = [DataFile(folder, "texts", "", settings) for folder in folders]
            return [replace(file, stamp=file.stat()) for file in found]
        raise DataError(f"{paths[0].name} has an unknown extension; wanted {WANTED}", fix="convert or rename it")
    ignored = [path.name for path in data_paths(paths) if not format_of(path)]
    if ignored:
        are, names = verb(len(ignored), "is", "are"), ", ".join(ignored[:5])
        log.warning("ignored %s that %s not %s: %s", plural(len(ignored), "file"), are, WANTED, names)
    files = []
    for path in known:
        file = DataFile(path, format_of(path), "", settings)
        members = _members(file, log) if file.format == "zip" else [file]
        files += [replace(each, stamp=each.stat()) for each in members]
    return files


def _members(file: DataFile, log: logging.Logger) -> list[DataFile]:
    """Return the text files in an archive."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except zipfile.BadZipFile:
        what = f"{file.name} is truncated or corrupt zip"
        raise DataError(what, fix="copy or compress the file again") from None
    visible = [name for name in names if not any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)]
    found = [replace(file, member=name, format=format_of(Path(name))) for name in visible]
    texts = [each for each in found if each.format in ("csv", "tsv", "json") and each.member.count(".gz") == 0]
    if not texts:
        what = f"{file.name} has no csv, tsv or json file"
        raise DataError(what, fix="extract it, and read its files")
    if len(texts) < len(visible):
        others = [each.member for each in found if each not in texts]
        log.warning("ignored %s in %s, not csv, tsv or json: %s", plural(len(others), "file"), file.name, others[:5])
    return texts


def _text_folders(root: Path) -> list[Path]:
    """Return the folders whose subfolders are classes of text files: `root`, or its folders train, valid and test."""
    inside = sorted({path.relative_to(root).parts[0] for path in text_files(root) if path.parent != root})
    if any(SPLIT_NAMES.get(name.lower()) == "train" for name in inside):
        return [root / name for name in inside]
    return [root] if inside else []


def _check_links(paths: list[Path], root: Path) -> None:
    """Raise DataError for a file of a folder or a glob that is a link to elsewhere; a file that is named may be one."""
    if paths == [root]:
        return
    top = next(folder for folder in (root, *root.parents) if folder.is_dir()).resolve()
    for path in paths:
        if not path.resolve().is_relative_to(top):
            raise DataError(f"{path} is a link that leads outside of {top}", fix="copy the file, or name it itself")


def check_exists(uris: Iterable[str]) -> None:
    """Raise DataError for the first path, package URI or SQLite URL without a file; other schemes are not checked."""
    for uri in uris:
        path = sqlite_path(uri)
        if path is not None and not path.is_file():
            raise _no_files(uri, path)
        other = scheme(uri) != "package://" and (scheme(uri) or is_sql(uri) or "://" in uri.removeprefix("file://"))
        if not other and not local_files(uri):
            raise _no_files(uri, local_path(uri))


def _with_splits(files: list[DataFile], root: Path) -> list[DataFile]:
    """Infer splits from names (train.csv, test-00001.parquet, train/a.csv): for all files, or for none."""
    if len(files) == 1:
        return files
    splits = [_split_of(file, root) for file in files]
    if any(splits) and not all(splits):
        unnamed = files[splits.index("")].name
        raise DataError(
            f"{unnamed} names neither train, valid nor test, but other files in its folder do",
            fix="rename or move it, or read the files one by one with -s read.uri=, read.valid= and read.test=",
        )
    if any(splits) and "train" not in splits:
        splits = [""] * len(splits)
    return [replace(file, split=split) for file, split in zip(files, splits, strict=True)]


def _split_of(file: DataFile, root: Path) -> str:
    path = file.path
    names = path.relative_to(root).parts if path.is_relative_to(root) else (path.name,)
    for name in (*(names or (path.name,)), *PurePosixPath(file.member).parts):
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
