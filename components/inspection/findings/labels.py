"""Labels: their distribution, classes too rare to measure, and labels that the order of rows gives away."""

from __future__ import annotations

import math

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.labels import LabelKind
from raypath.components.data.labels.classes import MAX_CLASSES
from raypath.components.data.wording import plural, verb
from raypath.components.inspection.findings.giveaways import giveaways
from raypath.components.inspection.findings.make import Found, finding
from raypath.components.inspection.report import ClassCount, Severity
from raypath.components.inspection.statistics import SPLITS, Statistics

_Z = 1.96


def class_counts(found: Statistics) -> list[ClassCount]:
    """Rows by class and split, the most frequent first."""
    names = [name for name in SPLITS[1:] if found.in_split(name).any()]
    by_split = {name: found.class_rows(found.in_split(name)) for name in names}
    rows = found.class_rows()
    order = np.argsort(-rows, kind="stable")[:MAX_CLASSES]
    return [
        ClassCount(
            label=found.classes[n],
            rows=int(rows[n]),
            splits={name: int(counts[n]) for name, counts in by_split.items()},
        )
        for n in order
        if rows[n]
    ]


def labels(found: Statistics, min_test_rows: int, test_share: float) -> list[Found]:
    """Find rare classes, imbalance, and labels that words or the order of rows give away.

    test_share: share of the rows in the test split, where the data has none.
    """
    if found.label_kind is LabelKind.NONE:
        return []
    made = position(found)
    if found.label_kind is LabelKind.NUMBER or found.has_conversations:
        # Labels of conversations mark good and bad responses, which no model predicts.
        return made
    made += class_number(found) + rare_classes(found, min_test_rows, test_share) + imbalance(found)
    return made + giveaways(found) if found.label_kind is not LabelKind.SET else made


def class_number(found: Statistics) -> list[Found]:
    """One class, from which nothing can be learned, or more than a model can have: the step `split` rejects both."""
    names = [found.classes[n] for n in np.flatnonzero(found.class_rows())]
    if len(names) == 1:
        text = f"all rows with a label have the class {names[0]}: a model needs at least two classes"
    elif len(names) > MAX_CLASSES:
        text = f"there are {len(names):,} classes, and a model has at most {MAX_CLASSES:,}: merge some"
    else:
        return []
    text += ", or another column, set with read.label"
    return [finding("class_number", Severity.ERROR, text, found, np.zeros(0, np.int64), {}, count=len(names))]


def rare_classes(found: Statistics, min_test_rows: int, test_share: float) -> list[Found]:
    """Classes with fewer rows in the test split than a metric needs, given or expected."""
    test = found.in_split("test")
    every = found.class_rows()
    expected = found.class_rows(test) if test.any() else np.floor(every * test_share + 0.5).astype(np.int64)
    rare = np.flatnonzero((expected < min_test_rows) & (every > 0))
    if not len(rare):
        return []
    least = int(expected[rare].min())
    width = 100 * _Z * 0.5 / math.sqrt(max(least, 1))
    fewest = sorted((int(expected[n]), found.classes[n]) for n in rare)
    names = ", ".join(f"{name}: {rows}" for rows, name in fewest[:5]) + (", ..." if len(rare) > 5 else "")
    what = f"{plural(len(rare), 'class', 'classes')} {verb(len(rare), 'has', 'have')} fewer than {min_test_rows} rows"
    text = (
        f"{what} in the test split ({names}): a metric of {plural(max(least, 1), 'row')} is uncertain by up to "
        f"±{min(width, 100):.0f} points"
    )
    lone = (every[rare] == 1).any()
    needed = math.ceil(min_test_rows / test_share) if test_share else 2
    # Dropping what is left of most classes would not be a remedy.
    dropped = int(every[every < needed].sum())
    fits = not test.any() and dropped <= 0.05 * every.sum() and (every >= needed).sum() >= 2
    settings = {"split.min_rows": needed if fits else 2} if fits or lone else {}
    rows = np.flatnonzero(np.isin(found.codes, rare) & found.present)
    rows = rows if found.label_kind is not LabelKind.SET else rows[:0]
    severity = Severity.ERROR if lone else Severity.WARNING
    return [finding("rare_classes", severity, text, found, rows, settings, count=len(rare))]


def imbalance(found: Statistics) -> list[Found]:
    """A class with more than twenty times the rows of another, each large enough to be learned."""
    rows = found.class_rows()
    rows = rows[rows >= 20]
    if found.label_kind is LabelKind.SET or len(rows) < 2 or rows.max() < 20 * rows.min():
        return []
    text = f"the largest class has {rows.max() / rows.min():,.0f} times the rows of the smallest"
    settings = {"finetune.objective.class_weights": "balanced"}
    return [finding("imbalance", Severity.NOTE, text, found, rows[:0], settings, count=len(rows))]


def position(found: Statistics) -> list[Found]:
    """Rows in the order of their labels: neighbours agree far more often than they would in random order."""
    agreement, expected, spread = _neighbours(found)
    if spread == 0 or agreement - expected < 0.2 or (agreement - expected) / spread < 8:
        return []
    text = (
        f"the rows are sorted by label, or nearly so: {agreement:.0%} of neighbours have the same one, and "
        f"{expected:.0%} would in random order; splits are drawn at random, unless a column or file gives them"
    )
    given = bool((found.splits > 0).any())
    severity = Severity.WARNING if given else Severity.NOTE
    return [finding("sorted_labels", severity, text, found, np.zeros(0, np.int64), {}, count=found.rows)]


def _neighbours(found: Statistics) -> tuple[float, float, float]:
    """Agreement of neighbours, what random order gives, and its standard deviation; by halves for numbers."""
    codes = _halves(found) if found.label_kind is LabelKind.NUMBER else found.codes[found.present]
    codes = codes[codes >= 0]
    if len(codes) < 30:
        return 0.0, 0.0, 0.0
    shares = np.bincount(codes) / len(codes)
    expected = float((shares**2).sum())
    return float((codes[1:] == codes[:-1]).mean()), expected, math.sqrt(expected * (1 - expected) / (len(codes) - 1))


def _halves(found: Statistics) -> Array:
    numbers = found.numbers[found.present]
    return (numbers > np.median(numbers)).astype(np.int8) if len(numbers) else np.zeros(0, np.int8)
