"""Statistics of made-up values, for findings at their bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.core.labels import LabelKind
from raypath.components.inspection.collection.column_files import TYPES, ColumnFiles
from raypath.components.inspection.collection.sample import NOTHING, Sample
from raypath.components.inspection.findings.make import Found
from raypath.components.inspection.report import Severity
from raypath.components.inspection.rows import Places
from raypath.components.inspection.statistics import Statistics


def statistics(
    folder: Path,
    rows: int,
    kind: LabelKind = LabelKind.CLASS,
    classes: Sequence[str] = ("a", "b"),
    sets: Sequence[tuple[str, ...]] = (),
    sample: Sample = NOTHING,
    **columns: Any,
) -> Statistics:
    """Statistics of a file a.csv: rows of 20 English words each, all different, of class a; others by keyword.

    columns: by name, with _ for -; a mapping has the values that differ, by row.
    """
    files = ColumnFiles(folder / "columns")
    rng = np.random.default_rng(0)
    for name, dtype in TYPES.items():
        values = np.zeros(rows, dtype)
        if name == "present":
            values[:] = True
        elif name == "texts":
            values = np.arange(rows, dtype=dtype)
        elif name in ("words", "lengths"):
            values[:] = 20
        elif name.startswith("band"):
            values = rng.integers(0, 2**63, rows, dtype)
        given = columns.pop(name.replace("-", "_"), None)
        if isinstance(given, dict):
            values[list(given)] = list(given.values())
        elif given is not None:
            values = np.asarray(given, dtype)
        files.append(name, values)
    files.close()
    assert not columns, "no such column"
    return Statistics(files, rows, Places(["a.csv"], [0]), kind, list(classes), list(sets), sample)


def only(found: list[Found]) -> tuple[Severity, int, str, dict[str, Any], list[int]]:
    """Severity, count, text, settings and all rows of the only finding; the first ten rows are shown."""
    [(made, rows)] = found
    assert [place.row - 1 for place in made.rows] == rows.tolist()[:10]
    return made.severity, made.count, made.text, made.settings, rows.tolist()


def kinds_of(found: list[Found]) -> list[str]:
    """Kinds of findings."""
    return [made.kind for made, _ in found]
