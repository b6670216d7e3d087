"""Plots of a regression on a test split, one panel per target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from raypath.components.core.arrays import Array
from raypath.components.evaluation.plots.style import BLUE, INK, STYLE, shown

PANELS = 6
"""Most targets shown."""
POINTS = 5_000
"""Most rows shown, evenly sampled: more would only darken the cloud."""
DASHES = (0, (4, 4))


def predicted(targets: Array, predictions: Array, names: tuple[str, ...]) -> Figure:
    """Draw predicted over actual numbers, with the identity line; both float [N, T]."""

    def draw(axes: Any, actual: Array, prediction: Array) -> None:
        ends = [min(actual.min(), prediction.min()), max(actual.max(), prediction.max())]
        axes.plot(ends, ends, color=INK, linewidth=1, linestyle=DASHES, label="the same")
        axes.set(xlabel="actual", ylabel="predicted")
        axes.legend(frameon=False, loc="upper left")

    return _panels(
        targets, predictions, names, "Predicted and actual", draw, lambda actual, prediction: (actual, prediction)
    )


def residuals(targets: Array, predictions: Array, names: tuple[str, ...]) -> Figure:
    """Draw residuals (actual minus predicted) over predictions; both float [N, T]."""

    def draw(axes: Any, actual: Array, prediction: Array) -> None:
        axes.axhline(0.0, color=INK, linewidth=1, linestyle=DASHES)
        axes.set(xlabel="predicted", ylabel="actual less predicted")

    return _panels(
        targets, predictions, names, "Residuals", draw, lambda actual, prediction: (prediction, actual - prediction)
    )


def _panels(
    targets: Array,
    predictions: Array,
    names: tuple[str, ...],
    title: str,
    draw: Callable[[Any, Array, Array], None],
    place: Callable[[Array, Array], tuple[Array, Array]],
) -> Figure:
    count = min(len(names), PANELS)
    columns = min(count, 3)
    lines = -(-count // columns)
    chosen = np.linspace(0, len(targets) - 1, min(len(targets), POINTS)).astype(int)
    more = f", the first {PANELS} of {len(names)} targets" if len(names) > PANELS else ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * columns, 4.6 * lines + 0.4), layout="constrained")
        figure.suptitle(title + more, x=0.01, ha="left", fontsize=12, fontweight="bold")
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for t, axes in enumerate(grid):
            axes.set_visible(t < count)
            if t < count:
                actual, prediction = targets[chosen, t].astype(np.float64), predictions[chosen, t]
                axes.scatter(*place(actual, prediction), s=14, alpha=0.45, color=BLUE, linewidths=0)
                draw(axes, actual, prediction)
                axes.set_title(shown(names[t], t, 30))
    return figure
