"""Plot of a search: settings and score of every trial, and the best score by compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from raypath.components.evaluation.plots.style import BLUE, GREY, INK, STYLE, shown
from raypath.components.tuning.journal import FAILED, FINISHED
from raypath.components.tuning.search_space import Dimension

Row = Mapping[str, Any]
RED = "#c2544b"
COLOURS = LinearSegmentedColormap.from_list("scores", ["#e9b872", "#b9c9b0", "#7fa8cf", BLUE, "#123a6b"])
"""Colors from the worst score to the best."""
SPREAD = 0.045
"""Share of an axis by which trials with the same choice are spread."""


def sweep(trials: Sequence[Row], searched: Sequence[Dimension], metric: str, best: int) -> Figure:
    """Draw each trial's settings and score as a line (left), and the best score by compute spent (right).

    trials: rows of trials.json, in order; best: the number of the best one.
    """
    with mpl.rc_context(STYLE):
        wide = max(5.0, 1.15 * (len(searched) + 1) + 1.2)
        figure = Figure(figsize=(wide + 4.8, 4.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[wide, 4.6])
        scored = [row for row in trials if row["score"] is not None and row["status"] != FAILED]
        low, high = _limits([float(row["value"]) for row in scored])
        _parallel(left, trials, searched, metric, best, (low, high))
        _course(right, trials, metric, best, (low, high))
        handles = [Line2D([], [], **_stroke(kind), **_marker(kind), label=kind) for kind in _kinds(trials)]
        handles.append(Line2D([], [], color=COLOURS(1.0), linewidth=3.5, marker="o", label=f"best: trial {best}"))
        figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _parallel(
    axes: Any, trials: Sequence[Row], searched: Sequence[Dimension], metric: str, best: int, limits: tuple[float, float]
) -> None:
    last = len(searched)
    for x, dimension in enumerate(searched):
        _axis(axes, x, _ticks(dimension))
    low, high = limits
    _axis(axes, last, [(_place(v, limits), f"{v:.3g}") for v in np.linspace(low, high, 5)], right=True)
    colours = _colours(trials)
    # Draw the best trial last, on top of the others.
    for row in sorted(trials, key=lambda row: (row["trial"] == best, colours[row["trial"]][0])):
        heights = [_height(d, row["values"][d.name], row["trial"], len(trials)) for d in searched]
        if row["status"] != FAILED and row["value"] is not None:
            heights.append(_place(float(row["value"]), limits))
        _line(axes, heights, row, colours[row["trial"]][1], row["trial"] == best)
    axes.set_xticks(range(last + 1), [_title(d.name) for d in searched] + [metric.replace("_", " ")])
    axes.tick_params(axis="x", length=0, pad=8)
    axes.set(xlim=(-0.35, last + 0.45), ylim=(-0.06, 1.06), yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title("Settings of each trial, and its score (darker is better)")


def _line(axes: Any, heights: list[float], row: Row, colour: Any, best: bool) -> None:
    style = _stroke(row["status"])
    if row["status"] != FAILED:
        style |= {"color": colour}
    if best:
        style |= {"linewidth": 3.5, "alpha": 1.0}
    axes.plot(range(len(heights)), heights, zorder=4 if best else 2, solid_capstyle="round", clip_on=False, **style)


def _course(axes: Any, trials: Sequence[Row], metric: str, best: int, limits: tuple[float, float]) -> None:
    """Draw scores over the compute spent when each trial ended, with trials counted one after another."""
    spent = np.cumsum([float(row["seconds"]) for row in trials]).tolist()
    scale, unit = (60.0, "minutes") if spent[-1] >= 300 else (1.0, "seconds")
    colours, low, high = _colours(trials), *limits
    steps: list[tuple[float, float]] = []
    lead = -math.inf
    counted = [row for row in trials if row["status"] == FINISHED] or trials
    for at, row in zip(spent, trials, strict=True):
        if row["status"] == FAILED or row["value"] is None:
            axes.plot(at / scale, low - 0.04 * (high - low), "x", color=RED, markersize=6, clip_on=False, zorder=3)
            continue
        y = min(max(float(row["value"]), low), high)
        colour = colours[row["trial"]][1]
        full = row["status"] == FINISHED
        size = 11 if row["trial"] == best else 7
        axes.plot(
            at / scale, y, "o", color=colour, markerfacecolor=colour if full else "white", markersize=size, zorder=4
        )
        if row in counted and row["score"] > lead:
            lead = row["score"]
            steps.append((at / scale, y))
    if steps:
        ends = [*steps, (spent[-1] / scale, steps[-1][1])]
        axes.step(*zip(*ends, strict=True), where="post", color=INK, linewidth=1.6, zorder=3)
    lower = any(row["score"] is not None and row["value"] is not None and row["score"] < row["value"] for row in trials)
    side = "lower" if lower else "higher"
    axes.set(xlabel=f"compute, {unit} of all trials", ylabel=f"{metric.replace('_', ' ')} ({side} is better)")
    axes.set_xlim(0, spent[-1] / scale * 1.05 or 1.0)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axes.grid(axis="y", color=GREY, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title("Best so far")


def _axis(axes: Any, x: int, ticks: list[tuple[float, str]], right: bool = False) -> None:
    axes.plot([x, x], [0, 1], color=INK, linewidth=1, zorder=3)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    for height, name in ticks:
        axes.plot([x - 0.02, x + 0.02], [height, height], color=INK, linewidth=1, zorder=3)
        side: Any = {"ha": "left"} if right else {"ha": "right"}
        place = x + 0.05 if right else x - 0.05
        axes.text(place, height, name, va="center", fontsize=8.5, bbox=box, zorder=5, **side)


def _ticks(dimension: Dimension) -> list[tuple[float, str]]:
    if dimension.choices:
        count = len(dimension.choices)
        chosen = range(count) if count <= 12 else np.linspace(0, count - 1, 12).astype(int)
        return [(_slot(n, count), shown(_plain(dimension.choices[n]), n, 10)) for n in chosen]
    middle = (dimension.low * dimension.high) ** 0.5
    places = [(0.0, dimension.low), (0.5, middle), (1.0, dimension.high)]
    return [(height, f"{value:,.0f}" if dimension.integer else f"{value:.2g}") for height, value in places]


def _height(dimension: Dimension, value: Any, trial: int, trials: int) -> float:
    """Position of a value on its axis, 0 to 1: ranges on a log scale, choices equally spaced."""
    if dimension.choices:
        count = len(dimension.choices)
        place = _slot(dimension.choices.index(value), count)
        return place + SPREAD * (trial / max(1, trials - 1) - 0.5) * (trials > 1)
    return (math.log(value) - math.log(dimension.low)) / (math.log(dimension.high) - math.log(dimension.low))


def _slot(number: int, count: int) -> float:
    return 0.5 if count == 1 else 0.03 + 0.94 * number / (count - 1)


def _place(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _limits(given: list[float]) -> tuple[float, float]:
    """Limits of the score axis; outliers do not compress the other trials."""
    if not given:
        return 0.0, 1.0
    values = np.sort(given)
    quarter, half, three = np.quantile(values, [0.25, 0.5, 0.75])
    reach = max(3.0 * (three - quarter), 0.02 * abs(half), 1e-6)
    low, high = max(values[0], half - reach), min(values[-1], half + reach)
    return (float(low), float(high)) if high > low else (float(low - reach), float(high + reach))


def _colours(trials: Sequence[Row]) -> dict[int, tuple[float, Any]]:
    """Return (rank from 0, the worst, to 1, the best; color) of each trial; failed ones have rank -1."""
    scored = [row for row in trials if row["status"] != FAILED and row["score"] is not None]
    order = sorted(scored, key=lambda row: (row["rung"], row["score"]))
    ranks = {row["trial"]: (n / (len(order) - 1) if len(order) > 1 else 1.0) for n, row in enumerate(order)}
    return {
        row["trial"]: (ranks.get(row["trial"], -1.0), COLOURS(max(0.0, ranks.get(row["trial"], 0.0)))) for row in trials
    }


def _kinds(trials: Sequence[Row]) -> list[str]:
    """List the statuses that occur."""
    return list(dict.fromkeys(sorted(str(row["status"]) for row in trials)))


def _stroke(status: str) -> dict[str, Any]:
    if status == FAILED:
        return {"color": RED, "linewidth": 1.0, "linestyle": (0, (1, 2)), "alpha": 0.9}
    if status == FINISHED:
        return {"color": "#7fa8cf", "linewidth": 1.8, "alpha": 0.9}
    return {"color": "#c9b58c", "linewidth": 1.0, "linestyle": (0, (5, 2)), "alpha": 0.75}


def _marker(status: str) -> dict[str, Any]:
    if status == FAILED:
        return {"marker": "x"}
    return {"marker": "o", "markersize": 7, "markerfacecolor": "#7fa8cf" if status == FINISHED else "white"}


def _title(name: str) -> str:
    return name.rsplit(".", 1)[-1].replace("_", "\n", 1).replace("_", " ")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value is None else str(value)
