"""Build the report from counts by row: metrics with intervals, the paired change, the rows to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.evaluation.generation import behaviour, catalog
from raypath.components.evaluation.generation.answers import Answers, References
from raypath.components.evaluation.paired import compare
from raypath.components.reports.evaluation.contents import Estimate
from raypath.components.reports.generation.contents import Leak, Lengths, Measured, Sample

BINS, EDGE_SHARE = 24, 0.98
"""Bins of lengths, and the share of the answers that they cover without the last one."""
_WORST, _GAINS, _LOSSES, _BEST, _TYPICAL = 6, 6, 6, 3, 6
"""Rows of each kind that are shown."""
_MOST_LEAKS = 20
COMPARED = 2_000
"""Resamples of the comparison with the base; the gate takes more."""


def measured(
    names: Sequence[str], counts: Mapping[str, Array], before: Mapping[str, Array], resamples: int, seed: int
) -> dict[str, Measured]:
    """Return the metrics that there are counts of, in the order of `names`. before: counts of the base, may be {}."""
    found = {}
    for name in names:
        if name not in counts:
            continue
        metric = catalog.METRICS[name]
        bounds = catalog.intervals(name, counts[name], resamples, seed)
        value = Estimate(
            value=catalog.value(name, counts[name]), low=bounds.get(f"{name}_low"), high=bounds.get(f"{name}_high")
        )
        change = _change(name, counts[name], before[name], resamples, seed) if name in before else {}
        found[name] = Measured(
            about=metric.about, value=value, lower=metric.lower, neutral=metric.neutral, top=metric.top, **change
        )
    return found


def choose_samples(main: str, counts: Array, before: Array | None) -> list[Sample]:
    """Choose rows to show by the main metric: the largest changes, the worst, the best, and evenly spread ones.

    The number of a sample is its place among the rows, [N].
    """
    metric = catalog.METRICS[main]
    scores = metric.outcomes(counts).scores
    old = metric.outcomes(before).scores if before is not None else None
    kinds: list[tuple[str, Array, int]] = []
    if old is not None:
        gains = scores - old
        kinds += [("largest gain", _ordered(-gains, gains > 0), _GAINS), ("loss", _ordered(gains, gains < 0), _LOSSES)]
    kinds += [("worst", _ordered(scores), _WORST), ("best", _ordered(-scores), _BEST)]
    kinds.append(("any row", np.unique(np.linspace(0, len(scores) - 1, 4 * _TYPICAL).astype(int)), _TYPICAL))
    sign = -1.0 if metric.lower else 1.0
    shown: dict[int, Sample] = {}
    for why, rows, most in kinds:
        for row in [int(each) for each in rows if int(each) not in shown][:most]:
            known = {"before": float(sign * old[row])} if old is not None else {}
            shown[row] = Sample(row=row, why=why, score=float(sign * scores[row]), **known)
    return list(shown.values())


def count_lengths(references: Sequence[str], answers: Sequence[str], before: Sequence[str] = ()) -> Lengths:
    """Count the answers by their number of words; without answers the references alone."""
    words = [np.array([behaviour.length(text) for text in texts]) for texts in (references, answers, before)]
    longest = float(np.quantile(np.concatenate(words), EDGE_SHARE)) if len(references) else 0.0
    width = max(1, int(np.ceil((longest + 1) / BINS)))
    edges = np.arange(BINS + 1) * width
    counts = [np.bincount(np.minimum(each // width, BINS - 1).astype(int), minlength=BINS).tolist() for each in words]
    return Lengths(
        edges=edges.tolist(),
        reference=counts[0],
        answer=counts[1] if len(answers) else [],
        before=counts[2] if len(before) else [],
    )


def find_leaks(wanted: References, answers: Answers) -> list[Leak]:
    """Return the answers that copy passages of training answers, the longest passage first."""
    found = [Leak(row=row, words=words) for row, words in enumerate(wanted.copied_words(answers.predictions)) if words]
    return sorted(found, key=lambda each: -each.words)[:_MOST_LEAKS]


def _change(name: str, counts: Array, before: Array, resamples: int, seed: int) -> dict[str, object]:
    metric = catalog.METRICS[name]
    new, old = metric.outcomes(counts), metric.outcomes(before)
    if not resamples:
        return {"before": old.value(), "change": Estimate(value=new.value() - old.value())}
    found = compare(new, old, metric.lower, resamples=min(resamples, COMPARED), seed=seed)
    ends = (-found.high, -found.low) if metric.lower else (found.low, found.high)
    change = Estimate(value=found.new - found.old, low=ends[0], high=ends[1])
    return {"before": found.old, "change": change, "chance": found.chance}


def _ordered(keys: Array, there: Array | None = None) -> Array:
    order = np.argsort(keys, kind="stable")
    return order if there is None else order[there[order]]
