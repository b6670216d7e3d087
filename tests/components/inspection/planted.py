"""Rows with planted faults, for tests and for the table in docs/inspect.md."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raypath.components.inspection.rows import Part

_SUBJECTS = [
    "tea",
    "coffee",
    "soup",
    "bread",
    "honey",
    "rice",
    "pasta",
    "cheese",
    "apple",
    "cereal",
    "sauce",
    "butter",
    "candy",
    "chips",
    "juice",
    "beans",
]
_GOOD = ["fresh", "rich", "smooth", "lovely", "crisp", "sweet", "tender", "perfect", "bright"]
_BAD = ["stale", "bitter", "soggy", "bland", "broken", "sour", "greasy", "rotten", "dusty"]
_FILL = [
    "the",
    "and",
    "with",
    "for",
    "after",
    "before",
    "box",
    "bag",
    "jar",
    "order",
    "shipping",
    "price",
    "store",
    "family",
    "morning",
    "dinner",
    "kitchen",
    "week",
    "month",
    "arrived",
    "bought",
    "opened",
    "cooked",
    "tasted",
    "served",
    "shared",
    "returned",
    "expected",
    "noticed",
    "compared",
    "recommended",
]


def texts(number: int, seed: int = 0, words: int = 24) -> tuple[list[str], list[str]]:
    """Return texts and their labels, good and bad, that a linear model of their words can tell apart."""
    rng = np.random.default_rng(seed)
    found, labels = [], []
    for _ in range(number):
        label = "good" if rng.random() < 0.6 else "bad"
        chosen = [*rng.choice(_FILL, words - 8), *rng.choice(_SUBJECTS, 4)]
        own, other = (_GOOD, _BAD) if label == "good" else (_BAD, _GOOD)
        chosen += [*rng.choice(own, 3), rng.choice(other)]
        rng.shuffle(chosen)
        found.append(" ".join(chosen).capitalize() + ".")
        labels.append(label)
    return found, labels


def part(rows: list[str], labels: list[str], name: str = "rows.csv", split: str = "", size: int = 500) -> Part:
    """Return rows as a part of tables of `size` rows."""
    table = pa.table({"text": pa.array(rows, pa.string()), "label": pa.array(labels, pa.string())})
    return Part(name, [table.slice(start, size) for start in range(0, len(rows), size)], split)
