"""Duplicates, leaks and contradictions at their bounds: severity, the whole text, the rows and the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.labels import LabelKind
from raypath.components.inspection.findings import duplicates
from raypath.components.inspection.report import Severity
from tests.components.inspection.made_up import kinds_of, only, statistics

ERROR, WARNING, NOTE = Severity
DROP = {"split.duplicates": "drop"}
CLASS, SET, NUMBER = LabelKind.CLASS, LabelKind.SET, LabelKind.NUMBER


def _bands(rows: int, alike: dict[int, int], bands: int = 16) -> dict[str, Any]:
    """Bands of `rows` different rows, of which some are those of others."""
    made = np.random.default_rng(1).integers(0, 2**63, (16, rows), np.uint64)
    for row, other in alike.items():
        made[:bands, row] = made[:bands, other]
    return {f"band_{n:02d}": made[n] for n in range(16)}


@pytest.mark.parametrize(
    ("rows", "again", "severity", "text"),
    [
        (1_000, {7: 3}, NOTE, "1 row (0.1%) repeats the text of an earlier row"),
        (999, {7: 3}, WARNING, "1 row (0.1%) repeats the text of an earlier row"),
        (20, {7: 3, 9: 3}, WARNING, "2 rows (10%) repeat the text of an earlier row"),
    ],
)
def test_duplicates(tmp_path: Path, rows: int, again: dict[int, int], severity: Severity, text: str) -> None:
    found = statistics(tmp_path, rows, texts=again, codes=[0] * rows)
    assert only(duplicates.duplicates(found, 0.8)) == (severity, len(again), text, DROP, list(again))
    assert kinds_of(duplicates.duplicates(found, 0.8)) == ["duplicates"]
    absent = statistics(tmp_path, rows, texts=again, present=dict.fromkeys(again, False))
    assert duplicates.duplicates(absent, 0.8) == []


@pytest.mark.parametrize(
    ("rows", "alike", "severity", "text"),
    [
        (1_000, {7: 3}, NOTE, "1 row (0.1%) has nearly the same text as an earlier row; "
         "name a column that groups it with read.group, or remove it"),
        (999, {7: 3}, WARNING, "1 row (0.1%) has nearly the same text as an earlier row; "
         "name a column that groups it with read.group, or remove it"),
        (10, {7: 3, 9: 5}, WARNING, "2 rows (20%) have nearly the same text as an earlier row; "
         "name a column that groups them with read.group, or remove them"),
    ],
)  # fmt: skip
def test_near_duplicates(tmp_path: Path, rows: int, alike: dict[int, int], severity: Severity, text: str) -> None:
    bands = _bands(rows, alike)
    found = statistics(tmp_path, rows, words=dict.fromkeys(alike, 5), **bands)
    assert only(duplicates.duplicates(found, 0.8)) == (severity, len(alike), text, {}, list(alike))
    assert kinds_of(duplicates.duplicates(found, 0.8)) == ["near_duplicates"]
    short = statistics(tmp_path, rows, words=dict.fromkeys(alike, 4), **bands)
    assert duplicates.duplicates(short, 0.8) == []


@pytest.mark.parametrize(("bands", "similarity", "near"), [(12, 0.75, 1), (12, 0.76, 0), (16, 1.0, 1), (15, 1.0, 0)])
def test_near_duplicates_share_bands(tmp_path: Path, bands: int, similarity: float, near: int) -> None:
    found = statistics(tmp_path, 10, **_bands(10, {7: 3}, bands))
    assert len(duplicates.duplicates(found, similarity)) == near


@pytest.mark.parametrize(
    ("held_out", "leaks", "severity", "text"),
    [
        (500, 1, WARNING, "1 row of train has {} as a row of valid or test, which inflates the metrics{}"),
        (499, 1, ERROR, "1 row of train has {} as a row of valid or test, which inflates the metrics{}"),
        (500, 2, ERROR, "2 rows of train have {} as a row of valid or test, which inflates the metrics{}"),
    ],
)
@pytest.mark.parametrize("split", [2, 3])
def test_leaks(tmp_path: Path, held_out: int, leaks: int, severity: Severity, text: str, split: int) -> None:
    rows = held_out + 8
    splits = [1, 0, 1, 1, 1, 1, 1, 1, *[split] * held_out]
    it = "it" if leaks == 1 else "them"
    equal = {10 + n: 2 + n for n in range(leaks)} | {9: 1}  # the row 1 has no split
    _, leak = duplicates.duplicates(statistics(tmp_path, rows, texts=equal, splits=splits), 0.8)
    wanted = [2 + n for n in range(leaks)]
    assert leak[0].kind == "leaks"
    assert only([leak]) == (severity, leaks, text.format("the same text", ""), DROP, wanted)
    near = statistics(tmp_path, rows, splits=splits, **_bands(rows, equal))
    _, leak = duplicates.duplicates(near, 0.8)
    remedy = f"; remove {it}, or name a column that groups {it} with read.group"
    assert leak[0].kind == "near_leaks"
    assert only([leak]) == (severity, leaks, text.format("nearly the same text", remedy), {}, wanted)


def test_a_row_that_leaks_is_named_once(tmp_path: Path) -> None:
    both = statistics(tmp_path, 9, splits=[1] * 4 + [2] * 5, texts={5: 2}, **_bands(9, {5: 2, 6: 3}))
    found = {made.kind: rows.tolist() for made, rows in duplicates.duplicates(both, 0.8)}
    assert found == {"duplicates": [5], "near_duplicates": [6], "leaks": [2], "near_leaks": [3]}
    absent = statistics(tmp_path, 9, splits=[1] * 4 + [2] * 5, texts={5: 2}, present={2: False})
    assert duplicates.duplicates(absent, 0.8) == []


@pytest.mark.parametrize(
    ("rows", "again", "severity", "text"),
    [
        (2_000, {7: 3}, NOTE, "1 text has different labels in 2 rows: "
         "no model can predict both; correct them, or remove all but one"),
        (1_999, {7: 3}, WARNING, "1 text has different labels in 2 rows: "
         "no model can predict both; correct them, or remove all but one"),
        (20, {7: 3, 8: 3, 9: 4}, WARNING, "2 texts have different labels in 5 rows: "
         "no model can predict both; correct them, or remove all but one"),
    ],
)  # fmt: skip
def test_contradictions(tmp_path: Path, rows: int, again: dict[int, int], severity: Severity, text: str) -> None:
    codes = dict.fromkeys(again, 1)
    members = sorted({*again, *again.values()})
    for kind in (CLASS, SET, LabelKind.INT):
        found = statistics(tmp_path, rows, kind, texts=again, codes=codes, sets=[("a",), ("b",)])
        _, made = duplicates.duplicates(found, 0.8)
        assert made[0].kind == "contradictions"
        assert only([made]) == (severity, len(members), text, {}, members)
    for kind in (NUMBER, LabelKind.NONE):
        assert kinds_of(duplicates.duplicates(statistics(tmp_path, rows, kind, texts=again), 0.8)) == ["duplicates"]
