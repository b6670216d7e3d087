"""Duplicates: equal texts, near duplicates, leaks from train to valid or test, and contradictory labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.labels import LabelKind
from raypath.components.inspection.findings.make import Found, finding, percent, plural
from raypath.components.inspection.minhash import MIN_WORDS, similar_pairs
from raypath.components.inspection.report import Severity
from raypath.components.inspection.statistics import SPLITS, Statistics

_DROP = {"split.duplicates": "drop"}
_LEAKS = 0.002
"""Leaks, as a share of the rows of valid and test, above which metrics are wrong."""
_TRAIN = SPLITS.index("train")


def duplicates(found: Statistics, similarity: float) -> list[Found]:
    """Find equal texts, near duplicates, leaks and contradictory labels."""
    group = _equal(found.texts, found.present)
    near = near_groups(found, group, similarity)
    made = [*_equal_rows(found, group), *_near_rows(found, group, near)]
    made += _leaks(found, group, "leaks", "the same text", _DROP)
    made += _leaks(found, near, "near_leaks", "nearly the same text", {}, equal=group)
    return [*made, *_contradictions(found, group)]


def _equal(texts: Array, present: Array) -> Array:
    """Return the position of the first row of the same text, int64 [N]; absent rows are alone."""
    rows = np.flatnonzero(present)
    _, first, inverse = np.unique(texts[rows], return_index=True, return_inverse=True)
    group = np.arange(len(texts))
    group[rows] = rows[first][inverse]
    return group


def near_groups(found: Statistics, equal: Array, similarity: float) -> Array:
    """Return the first row of the group of similar texts of each row, int64 [N]; groups of equal texts are joined."""
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    size = found.rows
    rows = np.flatnonzero((equal == np.arange(size)) & found.present & (found.words >= MIN_WORDS))
    pairs = similar_pairs(found.bands, rows, similarity)
    graph: Any = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    first = np.full(size, size)
    np.minimum.at(first, components, np.arange(size))
    joined: Array = first[components][equal]
    return joined


def _equal_rows(found: Statistics, group: Array) -> list[Found]:
    again = np.flatnonzero(group != np.arange(found.rows))
    if not len(again):
        return []
    text = f"{plural(len(again), 'row')} ({percent(len(again), found.rows)}) repeat the text of an earlier row"
    severity = Severity.WARNING if len(again) > 0.001 * found.rows else Severity.NOTE
    return [finding("duplicates", severity, text, found, again, _DROP)]


def _near_rows(found: Statistics, equal: Array, near: Array) -> list[Found]:
    again = np.flatnonzero((near != np.arange(found.rows)) & (equal == np.arange(found.rows)))
    if not len(again):
        return []
    what = f"{plural(len(again), 'row')} ({percent(len(again), found.rows)}) are nearly the text of an earlier row"
    text = f"{what}; name a column that groups them with read.group, or remove them"
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
    verb = "has" if len(rows) == 1 else "have"
    text = f"{plural(len(rows), 'row')} of train {verb} {what} as a row of valid or test, which inflates the metrics"
    if not settings:
        text += "; remove them, or name a column that groups them with read.group"
    held_out = int(((found.splits > _TRAIN) & found.present).sum())
    severity = Severity.ERROR if len(rows) > _LEAKS * held_out else Severity.WARNING
    return [finding(kind, severity, text, found, rows, settings)]


def leaking(found: Statistics, group: Array) -> Array:
    """Return a mask of the rows of train whose group has a row of valid or test, bool [N]."""
    held_out = (found.splits > _TRAIN) & found.present
    mask: Array = (found.splits == _TRAIN) & found.present & np.isin(group, np.unique(group[held_out]))
    return mask


def _contradictions(found: Statistics, group: Array) -> list[Found]:
    """Rows whose text has another label elsewhere."""
    if found.label_kind in (LabelKind.NONE, LabelKind.NUMBER):
        return []
    low, high = np.full(found.rows, np.iinfo(np.int32).max), np.full(found.rows, -1)
    np.minimum.at(low, group, found.codes)
    np.maximum.at(high, group, found.codes)
    rows = np.flatnonzero((low < high)[group] & found.present)
    if not len(rows):
        return []
    texts = len(np.unique(group[rows]))
    what = f"{plural(texts, 'text')} {'has' if texts == 1 else 'have'} different labels in {plural(len(rows), 'row')}"
    severity = Severity.WARNING if len(rows) > 0.001 * found.rows else Severity.NOTE
    text = f"{what}: no model can predict both; correct them, or remove all but one"
    return [finding("contradictions", severity, text, found, rows)]
