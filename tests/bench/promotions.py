"""Simulate the gate: how often an equal model is promoted, and how often a better one (`python -m
tests.bench.promotions`).

Pairs of classifiers are drawn by row: both right, one right, none right. Agreement is the share of rows on which both
give the same class; the gain is the difference of their true accuracies. Macro F1 is of two balanced classes.
"""

from __future__ import annotations

import argparse

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.evaluation.outcomes import class_outcomes
from raypath.components.evaluation.paired import compare
from raypath.components.inference.batch.slices import SLICE_ROWS
from raypath.components.registry.evidence import Evidence, Rules, Slice, decide

LABELS = ("no", "yes")
AGREEMENTS = (0.8, 0.9, 0.95, 0.98, 0.995)
ACCURACY = 0.85


def draw_pair(rng: np.random.Generator, rows: int, agreement: float, gain: float) -> tuple[Array, Array, Array]:
    """Draw targets and the predictions of a new and an old model, int64 [N] each.

    The old model's accuracy is ACCURACY. Of two classes, predictions that differ have one right one.
    """
    differ = 1 - agreement
    won, lost = (differ + gain) / 2, (differ - gain) / 2
    both = ACCURACY - lost
    kind = rng.choice(4, rows, p=[both, won, lost, 1 - both - won - lost])
    targets = rng.integers(0, 2, rows)
    new, old = (np.where(np.isin(kind, right), targets, 1 - targets) for right in ((0, 1), (0, 2)))
    return targets, new, old


def promoted(targets: Array, new: Array, old: Array, metric: str, resamples: int, seed: int = 0) -> bool:
    """Decide as the gate does, with the rows of each class as slices."""
    none = np.zeros((len(targets), 2))
    sides = [class_outcomes(metric, targets, each, none, LABELS) for each in (new, old)]
    whole = compare(sides[0], sides[1], resamples=resamples, seed=seed)
    if not decide(Evidence(metric, whole), "version 1", Rules()).promote:
        return False  # slices only take a promotion away
    right = [class_outcomes("accuracy", targets, each, none, LABELS) for each in (new, old)]
    rows = [targets == k for k in range(2) if (targets == k).sum() >= SLICE_ROWS]
    pairs = [(right[0].take(each), right[1].take(each)) for each in rows]
    slices = [Slice("class", compare(*pair, resamples=resamples, seed=seed)) for pair in pairs]
    return decide(Evidence(metric, whole, slices), "version 1", Rules()).promote


def rate(
    rows: int, agreement: float, gain: float, metric: str = "accuracy", trials: int = 2000, resamples: int = 2000
) -> float:
    """Return the share of `trials` pairs of models in which the new one is promoted."""
    rng = np.random.default_rng([rows, round(1000 * agreement), round(1000 * gain)])
    pairs = (draw_pair(rng, rows, agreement, gain) for _ in range(trials))
    return float(np.mean([promoted(*pair, metric, resamples) for pair in pairs]))


def main() -> None:
    """Print the table of docs/promotion.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000, help="pairs of equal models; a quarter for better ones")
    trials = parser.parse_args().trials
    print("| metric | test rows | agreement | promoted when equal | at +1 point | at +2 points |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for metric, rows in (("accuracy", 1000), ("accuracy", 200), ("macro_f1", 1000)):
        for agreement in AGREEMENTS:
            gains = [gain for gain in (0.0, 0.01, 0.02) if gain <= 1 - agreement + 1e-9]
            shares = [f"{rate(rows, agreement, gain, metric, trials // (4 if gain else 1)):.1%}" for gain in gains]
            shares += ["not possible"] * (3 - len(shares))
            print(f"| {metric} | {rows:,} | {agreement:.1%} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
