"""Duplicates: equal texts, near duplicates, leaks from train to valid or test, and contradictory labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.labels import LabelKind
from raypath.components.data.wording import percent, plural, verb
from raypath.components.inspection.findings.make import Found, finding, noun
from raypath.components.inspection.minhash import MIN_WORDS, run_starts, similar_groups
from raypath.components.inspection.report import Severity
from raypath.components.inspection.rows import position_type
from raypath.components.inspection.statistics import SPLITS, Statistics

_DROP = {"split.duplicates": "drop"}
_LEAKS = 0.002
"""Leaks, as a share of the rows of valid and test, above which metrics are wrong."""
_TRAIN = SPLITS.index("train")


def duplicates(found: Statistics, similarity: float) -> list[Found]:
    """Find equal texts, near duplicates, leaks and contradictory labels."""
    group = equal_groups(found)
    near = near_groups(found, group, similarity)
    made = [*_equal_rows(found, group), *_near_rows(found, group, near)]
    made += _leaks(found, group, "leaks", f"the same {noun(found)}", _DROP)
    made += _leaks(found, near, "near_leaks", f"nearly the same {noun(found)}", {}, equal=group)
    return [*made, *_contradictions(found, group)]


def equal_groups(found: Statistics) -> Array:
    """Return the position of the first row of the same text, int32 or int64 [N]; absent rows are alone."""
    group = np.arange(found.rows, dtype=position_type(found.rows))
    rows = np.flatnonzero(found.present).astype(group.dtype)
    texts = found.texts[rows]
    order = np.argsort(texts, kind="stable").astype(group.dtype)
    group[rows[order]] = rows[order[run_starts(texts[order])]]
    return group


def near_groups(found: Statistics, equal: Array, similarity: float) -> Array:
    """Return the first row of the group of similar texts of each row, int [N]; groups of equal texts are joined."""
    rows = np.flatnonzero((equal == np.arange(found.rows)) & found.present & (found.words >= MIN_WORDS))
    rows = rows.astype(equal.dtype)
    near = np.arange(found.rows, dtype=equal.dtype)
    near[rows] = rows[similar_groups(found.band, rows, similarity)]
    joined: Array = near[equal]
    return joined


def _equal_rows(found: Statistics, group: Array) -> list[Found]:
    again = np.flatnonzero(group != np.arange(found.rows))
    if not len(again):
        return []
    what = f"{plural(len(again), 'row')} ({percent(len(again), found.rows)})"
    text = f"{what} {verb(len(again), 'repeats', 'repeat')} the {noun(found)} of an earlier row"
    severity = Severity.WARNING if len(again) > 0.001 * found.rows else Severity.NOTE
    return [finding("duplicates", severity, text, found, again, _DROP)]


def _near_rows(found: Statistics, equal: Array, near: Array) -> list[Found]:
    again = np.flatnonzero((near != np.arange(found.rows)) & (equal == np.arange(found.rows)))
    if not len(again):
        return []
    what = f"{plural(len(again), 'row')} ({percent(len(again), found.rows)}) {verb(len(again), 'has', 'have')}"
    it = verb(len(again), "it", "them")
    remedy = f"name a column that groups {it} with read.group, or remove {it}"
    text = f"{what} nearly the same {noun(found)} as an earlier row; {remedy}"
    severity = Severity.WARNING if len(again) > 0.001 * found.rows else Severity.NOTE
    return [finding("near_duplicates", severity, text, found, again)]


def _leaks(
    found: Statistics, group: Array, kind: str, what: str, settings: dict[str, Any], equal: Array | None = None
) -> list[Found]:
    """Rows of train that share a group with a row of valid or test; but not those that `equal` finds already."""
    leaks = leaking(found, group)
    if equal is not None:
        leaks &= ~leaking(found, equal)
    rows = np.flatnonzero(leaks)
    if not len(rows):
        return []
    has, it = verb(len(rows), "has", "have"), verb(len(rows), "it", "them")
    text = f"{plural(len(rows), 'row')} of train {has} {what} as a row of valid or test, which inflates the metrics"
    if not settings:
        text += f"; remove {it}, or name a column that groups {it} with read.group"
    held_out = int(((found.splits > _TRAIN) & found.present).sum())
    severity = Severity.ERROR if len(rows) > _LEAKS * held_out else Severity.WARNING
    return [finding(kind, severity, text, found, rows, settings)]


def leaking(found: Statistics, group: Array) -> Array:
    """Return a mask of the rows of train whose group has a row of valid or test, bool [N]."""
    splits, present = found.splits, found.present
    held_out = np.zeros(found.rows, bool)
    held_out[group[(splits > _TRAIN) & present]] = True
    mask: Array = (splits == _TRAIN) & present & held_out[group]
    return mask


def _contradictions(found: Statistics, group: Array) -> list[Found]:
    """Rows whose text has another label elsewhere."""
    if found.label_kind in (LabelKind.NONE, LabelKind.NUMBER):
        return []
    low, high = np.full(found.rows, np.iinfo(np.int32).max, np.int32), np.full(found.rows, -1, np.int32)
    codes = found.codes
    np.minimum.at(low, group, codes)
    np.maximum.at(high, group, codes)
    rows = np.flatnonzero((low < high)[group] & found.present)
    if not len(rows):
        return []
    texts = len(np.unique(group[rows]))
    what = f"{plural(texts, noun(found))} {verb(texts, 'has', 'have')} different labels in {plural(len(rows), 'row')}"
    severity = Severity.WARNING if len(rows) > 0.001 * found.rows else Severity.NOTE
    text = f"{what}: no model can predict both; correct them, or remove all but one"
    return [finding("contradictions", severity, text, found, rows)]
