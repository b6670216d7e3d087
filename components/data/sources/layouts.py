"""Folders that are read as a whole: Delta tables, and datasets saved by Hugging Face's `datasets`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path

from raypath.components.core.errors import DataError
from raypath.components.core.uris import DELTA_LOG

_SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")
"""Files beside the Arrow files of a saved dataset; not data."""


def is_delta(folder: Path) -> bool:
    """Return True for the folder of a Delta table."""
    return (folder / DELTA_LOG).is_dir()


def check_whole(paths: Iterable[Path], root: Path) -> None:
    """Raise DataError for a file inside a table with a log: the log may have removed its rows."""
    top = root if root.is_dir() else root.parent
    for folder in dict.fromkeys(parent for path in paths for parent in path.parents):
        if is_delta(folder):
            fix = f"read the table as a whole, with -s {shlex.quote(f'read.uri={folder}')}"
            raise DataError(f"{folder} is a Delta table, whose log says which rows are live", fix=fix)
        if folder.is_relative_to(top) and _is_lake_table(folder):
            what = f"{folder} is an Iceberg or Hudi table, whose metadata says which rows are live"
            raise DataError(what, fix="write its rows to Parquet files, and read these")


def _is_lake_table(folder: Path) -> bool:
    return (folder / ".hoodie").is_dir() or any(folder.glob("metadata/*.metadata.json"))


def data_paths(paths: list[Path]) -> list[Path]:
    """Leave out what is no data in saved datasets: their JSON files, and Arrow files that their state does not list."""
    saved = {path.parent for path in paths if path.name == "state.json"}
    folders = saved | {path.parent for path in paths if path.name == "dataset_dict.json"}
    live = {folder / name for folder in saved for name in _listed(folder)}
    missing = [path for path in sorted(live) if not path.is_file()]
    if missing:
        raise DataError(f"{missing[0]} is missing from its dataset", fix="copy the whole folder of the dataset")
    kept = (path for path in paths if not (path.parent in folders and path.name in _SAVED))
    return [path for path in kept if path.suffix != ".arrow" or path.parent not in saved or path in live]


def _listed(folder: Path) -> list[str]:
    """Return the names of the data files in the state of a saved dataset."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return [str(each["filename"]) for each in state["_data_files"]]
    except (ValueError, KeyError, TypeError):
        return [path.name for path in folder.glob("*.arrow")]
