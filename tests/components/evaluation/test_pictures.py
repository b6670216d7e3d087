"""Pictures of evaluations and of a search, in all that a reader sees: a change shows in pictures.json.

RAYPATH_UPDATE=1 writes that file anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from raypath.components.evaluation.plots import classification, regression, style
from raypath.components.tuning.plot import sweep
from raypath.components.tuning.search_space import Dimension
from tests.figures import described

GOLDEN = Path(__file__).with_name("pictures.json")
CLASSES = np.array([0, 0, 0, 1, 2, 2])
MANY = tuple(f"l{n}" for n in range(41))
SURE = np.array([[0.95, 0.05], [0.7, 0.3], [0.3, 0.7], [0.45, 0.55]])
NUMBERS = np.array([[1.0], [2.0], [4.0]])
SEARCHED = [
    Dimension("lr", low=1e-5, high=1e-3),
    Dimension("batch_tokens", low=512, high=8192, integer=True),
    Dimension("objective.class_weights", choices=("none", "balanced")),
    Dimension("dropout", choices=(None, 0.1, 0.25)),
]


def _trial(number: int, status: str, value: float | None, rung: int = 2, seconds: float = 20.0) -> dict[str, Any]:
    values = {"lr": 10.0 ** -(3 + number % 3), "batch_tokens": 512 << number, "dropout": (None, 0.1, 0.25)[number % 3]}
    values["objective.class_weights"] = ("none", "balanced")[number % 2]
    score = None if value is None else -value
    facts = {"status": status, "value": value, "score": score, "rung": rung, "seconds": seconds}
    return {"trial": number, "values": values, **facts}


TRIALS = [
    _trial(0, "finished", 0.5),
    _trial(1, "stopped early", 0.75, rung=1, seconds=10.0),
    _trial(2, "failed", None),
    _trial(3, "finished", 0.25),
]
HIGHER = [row | {"score": row["value"], "seconds": 200.0} for row in TRIALS if row["value"] is not None]
PICTURES: dict[str, Callable[[], Figure]] = {
    "confusion": lambda: classification.confusion(CLASSES, np.array([0, 0, 1, 1, 2, 0]), ("no", "yes", "好")),
    "confusion of 8": lambda: classification.confusion(CLASSES, CLASSES, MANY[:8]),
    "confused": lambda: classification.confusion(CLASSES, np.array([1, 1, 0, 1, 2, 0]), MANY),
    "not confused": lambda: classification.confusion(CLASSES, CLASSES, MANY),
    "reliability": lambda: classification.reliability(np.array([0, 1, 1, 0]), SURE, 0.1234),
    "per class": lambda: classification.per_class(np.array([0, 1, 1]), [0.9, 0.25], ("no", "yes")),
    "many classes": lambda: classification.per_class(CLASSES, [1 / (n + 1) for n in range(41)], MANY),
    "predicted": lambda: regression.predicted(NUMBERS, NUMBERS[::-1], ("price",)),
    "residuals": lambda: regression.residuals(NUMBERS, NUMBERS[::-1] * 0.5, ("price",)),
    "seven targets": lambda: regression.predicted(NUMBERS.repeat(7, 1), NUMBERS.repeat(7, 1), MANY[:7]),
    "four targets": lambda: regression.residuals(NUMBERS.repeat(4, 1), NUMBERS.repeat(4, 1), MANY[:4]),
    "search": lambda: sweep(TRIALS, SEARCHED, "log_loss", 3),
    "one trial": lambda: sweep(TRIALS[:1], SEARCHED[:1], "macro_f1", 0),
    "failed search": lambda: sweep(TRIALS[2:3], SEARCHED[:1], "macro_f1", 0),
    "higher is better": lambda: sweep(HIGHER, SEARCHED[2:], "macro_f1", 1),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows_what_it_did(name: str) -> None:
    found = json.loads(json.dumps(described(PICTURES[name]())))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("RAYPATH_UPDATE"):
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in (golden | {name: found}).items()]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    else:
        assert found == golden[name]


def test_points_of_many_rows_are_a_sample() -> None:
    rows = np.arange(20_000.0)[:, None]
    points = regression.predicted(rows, rows, ("price",)).axes[0].collections[0].get_offsets()
    assert (len(points), points[0].tolist(), points[-1].tolist()) == (5_000, [0, 0], [19_999, 19_999])


@pytest.mark.parametrize(("length", "shown"), [(30, "a" * 30), (31, "a" * 29 + "…")])
def test_the_name_of_a_target_is_truncated(length: int, shown: str) -> None:
    axes = regression.predicted(NUMBERS, NUMBERS, ("a" * length,)).axes[0]
    assert axes.get_title(loc="left") == shown


def test_counts_are_small_where_a_matrix_has_many_classes() -> None:
    def size(classes: int) -> float:
        figure = classification.confusion(CLASSES, CLASSES, MANY[:classes])
        return float(figure.axes[0].texts[0].get_fontsize())

    assert [size(classes) for classes in (6, 7, 20, 21, 40)] == [11, 8, 8, 5.5, 5.5]
    rotations = [
        classification.confusion(CLASSES, CLASSES, MANY[:n]).axes[0].get_xticklabels()[0].get_rotation() for n in (4, 5)
    ]
    assert rotations == [0, 90]


@pytest.mark.parametrize(
    ("label", "text"),
    [("a  b\n", "a b"), ("", "class 3"), ("好", "class 3"), ("123456", "123456"), ("1234567", "12345…")],
)
def test_a_label_as_it_is_shown(label: str, text: str) -> None:
    assert style.shown(label, 3, 6) == text


def test_a_picture_has_150_dots_an_inch_on_white(tmp_path: Path) -> None:
    import matplotlib.image

    path = style.save(Figure(figsize=(2, 1)), tmp_path / "a.png")
    image = matplotlib.image.imread(path)
    assert image.shape == (150, 300, 4)
    assert image.min() == 1.0
