"""BLEU and chrF over a corpus, from 0 to 100, equal to those of sacrebleu.

Both follow from sums of counts over rows, so that resampling rows computes no row again. sacrebleu counts the words for
BLEU; it is in the extra `chat`.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import ParamsError
from raypath.components.evaluation.bootstrap import ratio
from raypath.components.evaluation.generation.texts import is_unspaced

BLEU_ORDER, CHRF_ORDER, BETA = 4, 6, 2
"""Longest n-grams of words and of characters, and the weight of recall in chrF, as in sacrebleu."""


def has_bleu() -> bool:
    """Return True if sacrebleu is installed."""
    return importlib.util.find_spec("sacrebleu") is not None


def bleu_counts(references: Sequence[str], predictions: Sequence[str]) -> Array:
    """Return [N, 10]: lengths of prediction and reference, then matches and n-grams of the predictions by order.

    Chinese and Japanese references are split by character (sacrebleu's `zh`), others as by mteval-v13a. Raises
    ParamsError without sacrebleu.
    """
    if not has_bleu():
        raise ParamsError("the metric bleu needs sacrebleu", fix="pip install 'raypath[chat]', or take chrf")
    from sacrebleu.metrics.bleu import BLEU  # type: ignore[import-not-found, unused-ignore]

    counter = BLEU(tokenize="zh" if is_unspaced(list(references)) else "13a", effective_order=True)
    rows = []
    for reference, prediction in zip(references, predictions, strict=True):
        found = counter.sentence_score(prediction, [reference or " "])
        rows.append([found.sys_len, found.ref_len, *found.counts, *found.totals])
    return np.array(rows, np.float64).reshape(-1, 2 + 2 * BLEU_ORDER)


def bleu(sums: Array, effective: bool = False) -> Array:
    """Compute BLEU of sums of counts, [R, 10] -> [R] (Papineni et al., 2002).

    An order without matches counts as half a match, the next one as a quarter, and so on: NIST's smoothing, which is
    sacrebleu's `exp` (Chen and Cherry, A Systematic Comparison of Smoothing Techniques, 2014, method 3).

    effective: Use the orders that a row has n-grams of, for the score of a single row.
    """
    given, wanted = sums[:, 0], sums[:, 1]
    matches, totals = sums[:, 2 : 2 + BLEU_ORDER], sums[:, 2 + BLEU_ORDER :]
    there = totals > 0
    missed = there & (matches == 0)
    smoothed = 1 / (2.0 ** np.cumsum(missed, axis=1) * np.maximum(totals, 1))
    precision = np.where(missed, smoothed, ratio(matches, totals))
    orders = there.sum(axis=1) if effective else np.full(len(sums), BLEU_ORDER)
    logs = np.where(there, np.log(np.where(there, precision, 1.0)), 0.0 if effective else -np.inf)
    mean = np.exp(logs.sum(axis=1) / np.maximum(orders, 1))
    brevity = np.where(given < wanted, np.exp(1 - wanted / np.maximum(given, 1)), 1.0)
    return np.asarray(100 * np.where(matches.any(axis=1), brevity * mean, 0.0))


def chrf_counts(references: Sequence[str], predictions: Sequence[str]) -> Array:
    """Return [N, 18]: n-grams of characters in the prediction, in the reference and in both, by order."""
    rows = []
    for reference, prediction in zip(references, predictions, strict=True):
        wanted, given = "".join(reference.split()), "".join(prediction.split())
        row = []
        for order in range(1, CHRF_ORDER + 1):
            here, there = _grams(given, order), _grams(wanted, order)
            # As in sacrebleu, an order that the reference is too short for does not count against the prediction.
            row += [here.total() if there else 0, there.total(), (here & there).total()]
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 3 * CHRF_ORDER)


def chrf(sums: Array) -> Array:
    """Compute chrF2 of sums of counts, [R, 18] -> [R] (Popović, chrF: character n-gram F-score, 2015)."""
    given, wanted, both = (sums[:, n::3] for n in range(3))  # each [R, 6]
    counted = (given > 0) & (wanted > 0)
    orders = counted.sum(axis=1).astype(np.float64)
    precision, recall = (ratio((ratio(both, each) * counted).sum(axis=1), orders) for each in (given, wanted))
    weight = BETA**2
    return 100 * ratio((1 + weight) * precision * recall, weight * precision + recall)


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[n : n + order] for n in range(len(text) - order + 1))
