"""The picture of a search: readable with any number of trials, failed ones and none that finished included."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.evaluation.plots import style
from raypath.components.tuning.plot import COLOURS, RED, SPREAD, sweep
from raypath.components.tuning.search_space import Dimension

SEARCHED = [
    Dimension("lr", low=5e-5, high=2e-3),
    Dimension("frozen_layers", choices=(0, 2, 4)),
    Dimension("dropout", choices=(None, 0.1)),
    Dimension("objective.class_weights", choices=("none", "balanced")),
]


def _rows(count: int, statuses: tuple[str, ...]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(count)
    rows = []
    for n in range(count):
        values = {d.name: d.choices[int(rng.integers(len(d.choices)))] for d in SEARCHED if d.choices}
        values["lr"] = float(rng.uniform(5e-5, 2e-3))
        status, loss = statuses[n % len(statuses)], float(rng.uniform(0.4, 0.7))
        figure = None if status == "failed" else loss
        score = None if figure is None else -loss
        facts = {"status": status, "rung": 2 if status == "finished" else 1, "seconds": 9.0}
        rows.append({"trial": n, "values": values, "value": figure, "score": score, **facts})
    return rows


@pytest.mark.parametrize(
    ("count", "statuses"),
    [
        (1, ("finished",)),
        (1, ("stopped early",)),
        (3, ("finished", "failed")),
        (8, ("finished", "stopped early", "failed", "stopped early")),
        (50, ("finished", "stopped early")),
    ],
)
def test_every_search_has_a_picture(count: int, statuses: tuple[str, ...], tmp_path: Path) -> None:
    figure = sweep(_rows(count, statuses), SEARCHED, "log_loss", 0)
    path = style.save(figure, tmp_path / "sweep.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    left, right = figure.axes
    names = [tick.get_text() for tick in left.get_xticklabels()]
    assert names == ["lr", "frozen\nlayers", "dropout", "class\nweights", "log loss"]
    assert right.get_ylabel() == "log loss (lower is better)"
    assert right.get_xlabel() == f"compute, {'minutes' if count == 50 else 'seconds'} of all trials"


def test_one_trial_astray_does_not_press_the_others_together() -> None:
    rows = _rows(8, ("finished",))
    rows[5] |= {"value": 40.0, "score": -40.0}
    assert sweep(rows, SEARCHED, "log_loss", 0).axes[1].get_ylim()[1] < 3


def test_lines_go_through_the_settings_and_the_best_so_far_rises() -> None:
    rows = _rows(4, ("finished", "finished", "finished", "stopped early"))
    middle = (SEARCHED[0].low * SEARCHED[0].high) ** 0.5
    for row, loss in zip(rows, (0.6, 0.7, 0.5, 0.4), strict=True):
        row |= {"value": loss, "score": -loss, "values": row["values"] | {"lr": middle}}
    left, right = sweep(rows, SEARCHED, "log_loss", 2).axes
    trials = [line for line in left.lines if len(line.get_xdata()) == len(SEARCHED) + 1]
    assert [line.get_ydata()[0] for line in trials] == pytest.approx([0.5] * 4), "the axis of a range is logarithmic"
    assert trials[-1].get_linewidth() == 3.5, "the best lies on top"
    assert trials[-1].get_color() == COLOURS(1.0), "no trial that was stopped early is darker"
    (course,) = [line for line in right.lines if line.get_drawstyle() == "steps-post"]
    assert course.get_ydata() == pytest.approx([0.6, 0.5, 0.5])
    assert course.get_xdata() == pytest.approx([9.0, 27.0, 36.0])


def test_each_status_has_its_stroke_and_mark() -> None:
    figure = sweep(_rows(4, ("finished", "finished", "failed", "stopped early")), SEARCHED, "log_loss", 0)
    left, right = figure.axes
    lines = [line for line in left.lines if len(line.get_xdata()) in (len(SEARCHED), len(SEARCHED) + 1)]
    assert sorted(
        (line.get_linewidth(), line.is_dashed(), line.get_alpha(), line.get_color() == RED) for line in lines
    ) == [
        (1.0, True, 0.75, False),
        (1.0, True, 0.9, True),
        (1.8, False, 0.9, False),
        (3.5, False, 1.0, False),
    ]
    [failed] = [line for line in lines if line.get_color() == RED]
    assert len(failed.get_xdata()) == len(SEARCHED), "a failed trial has no score"
    [cross] = [line for line in right.lines if line.get_marker() == "x"]
    assert (cross.get_color(), cross.get_xdata()) == (RED, [27.0])
    found = {line.get_label(): (line.get_marker(), line.is_dashed()) for line in figure.legends[0].get_lines()}
    assert found == {
        "failed": ("x", True),
        "finished": ("o", False),
        "stopped early": ("o", True),
        "best: trial 0": ("o", False),
    }


def test_choices_are_equally_spaced_and_trials_of_one_choice_lie_side_by_side() -> None:
    def heights(rows: list[dict[str, Any]]) -> list[float]:
        left, _ = sweep(rows, SEARCHED, "log_loss", 0).axes
        return sorted(line.get_ydata()[1] for line in left.lines if len(line.get_xdata()) == len(SEARCHED) + 1)

    for value, place in ((0, 0.03), (2, 0.5), (4, 0.97)):
        rows = [row | {"values": row["values"] | {"frozen_layers": value}} for row in _rows(3, ("finished",))]
        assert heights(rows[:1]) == pytest.approx([place])
        assert heights(rows) == pytest.approx([place - SPREAD / 2, place, place + SPREAD / 2])
