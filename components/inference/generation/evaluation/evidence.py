"""Evidence for the gate on language models: the counts of two versions for the same rows, metric by metric.

The counts that `evaluate_generation` stored are used. A champion that was evaluated on other rows, or with other
settings, answers these rows now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError
from raypath.components.evaluation.generation import catalog
from raypath.components.evaluation.generation.answers import Answers
from raypath.components.evaluation.generation.stored import StoredCounts, load_counts
from raypath.components.evaluation.outcomes import mean_outcomes
from raypath.components.evaluation.paired import TIE, compare
from raypath.components.inference.batch.slices import SLICE_ROWS, column_slices
from raypath.components.inference.generation.evaluation.answering import answer
from raypath.components.inference.generation.evaluation.prompts import AnswerSettings, load_prompts
from raypath.components.models.metadata import read_metadata
from raypath.components.registry.evidence import Evidence, Slice
from raypath.components.reports.evaluation.comparison import LISTED, RowChange


def gather_answers(
    new: StoredCounts, champion: Path, same_rows: bool, data: Dataset, metric: str, threads: int = 1, seed: int = 0
) -> Evidence:
    """Compare a new version with the champion on the rows that the new one answered.

    champion: Its folder. same_rows: It was evaluated on the same test split. Raises DataError if they are not
    comparable by this metric.
    """
    if metric not in new.counts or metric not in catalog.METRICS:
        raise DataError(f"the new version has no {metric} by row")
    stored = _stored(new, champion, metric) if same_rows else None
    counts = _answered(new, champion, data, metric, threads) if stored is None else stored
    if metric not in counts:
        raise DataError(f"the champion has no {metric} by row, which needs more than its answers")
    if metric in catalog.LIKELIHOOD and not np.array_equal(new.counts[metric][:, 1], counts[metric][:, 1]):
        raise DataError(f"its tokens are others, and {metric} is a mean over tokens")
    kind = catalog.METRICS[metric]
    first, second = kind.outcomes(new.counts[metric]), kind.outcomes(counts[metric])
    better = first.scores - second.scores
    # A fall on a slice is a share of the metric's range: 0.05 is five points of chrF too.
    one, two = (each.scores / (kind.top or 1.0) for each in (first, second))
    slices = [
        Slice(name, compare(mean_outcomes(one[rows]), mean_outcomes(two[rows]), seed=seed))
        for name, rows in _slices(data, new.rows)
    ]
    sign = -1.0 if kind.lower else 1.0
    scores = sign * first.scores, sign * second.scores
    won, lost = (_changes(metric, new.rows, scores, side * better) for side in (1, -1))
    found = compare(first, second, kind.lower, seed=seed)
    note = "evaluated on this test split" if stored is None else ""
    return Evidence(metric, found, slices, note=note, won=won, lost=lost)


def _stored(new: StoredCounts, folder: Path, metric: str) -> dict[str, Array] | None:
    """Return the stored counts of a model; None if its rows or settings are others, or the metric is not in them."""
    old = load_counts(folder)
    same = old is not None and old.settings == new.settings and np.array_equal(old.rows, new.rows)
    return old.counts if old is not None and same and metric in old.counts else None


def _answered(new: StoredCounts, folder: Path, data: Dataset, metric: str, threads: int) -> dict[str, Array]:
    """Let a model answer the rows that the new version answered, and count what the metric needs."""
    settings = AnswerSettings.loads(new.settings)
    prompts = load_prompts(data, settings)
    if [each.row for each in prompts.rows] != new.rows.tolist():
        raise DataError("the rows of the test split are not those that the new version answered")
    if metric in catalog.PREFERENCE:
        return catalog.measure([metric], prompts.wanted, _rewarded(folder, data, new, settings, threads))
    made = answer(folder, folder, read_metadata(folder), prompts.rows, settings.sampling, threads)
    return catalog.measure([metric], prompts.wanted, made.answers())


def _rewarded(folder: Path, data: Dataset, new: StoredCounts, settings: AnswerSettings, threads: int) -> Answers:
    """Compare pairs of answers by a model as the new version was: with its objective, and its reference."""
    from raypath.components.inference.generation.evaluation.rewards import pair_rewards

    return Answers((), rewards=pair_rewards(folder, data, new.rows.tolist(), settings.objective, threads))


def _slices(data: Dataset, numbers: Array) -> Iterator[tuple[str, Array]]:
    """Yield name and rows, bool [N], of the slices of the split that have enough of the answered rows."""
    for name, rows in column_slices(data):
        here = rows[numbers]
        if SLICE_ROWS <= int(here.sum()) < len(here):
            yield name, here


def _changes(metric: str, numbers: Array, scores: tuple[Array, Array], better: Array) -> Sequence[RowChange]:
    """List the rows that one model answers better than the other, the largest difference first. All [N]."""
    new, old = scores
    order = np.argsort(-better, kind="stable")[:LISTED]
    return [
        RowChange(row=int(numbers[n]), label=metric, new=f"{new[n]:.3f}", old=f"{old[n]:.3f}")
        for n in order[better[order] > TIE]
    ]
