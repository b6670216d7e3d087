"""Counts of each row by metric in one file, without texts: two versions are compared by them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array

ANSWERS = "test_answers.npz"
"""File with the counts of a model's answers to a test split."""
_ROWS, _SETTINGS, _METRIC = "rows", "settings", "metric."


def save_counts(folder: Path, rows: Array, counts: Mapping[str, Array], settings: str) -> None:
    """Write the counts. rows: numbers of the rows in the split, int64 [N]. settings: all that the answers depend on."""
    arrays = {f"{_METRIC}{name}": each for name, each in counts.items()}
    with (folder / ANSWERS).open("wb") as file:
        np.savez_compressed(file, **{_ROWS: rows, _SETTINGS: np.array(settings), **arrays})  # type: ignore[arg-type]


@dataclass(frozen=True)
class StoredCounts:
    """Counts of N rows. rows: numbers of the rows in the split, int64 [N]; counts: by metric, float64 [N, F]."""

    rows: Array
    counts: dict[str, Array]
    settings: str


def load_counts(folder: Path) -> StoredCounts | None:
    """Read the counts; None if there are none."""
    try:
        with (folder / ANSWERS).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            found = {name.removeprefix(_METRIC): file[name] for name in file.files if name.startswith(_METRIC)}
            return StoredCounts(file[_ROWS], found, str(file[_SETTINGS]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
