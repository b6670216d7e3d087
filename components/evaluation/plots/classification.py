"""Plots of a classifier on a test split, as PNG. Uses Figure objects: pyplot keeps state and needs a display."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from raypath.components.core.arrays import Array
from raypath.components.evaluation.plots.style import BLUE, GREEN, GREY, INK, SAND, STYLE, shown

MATRIX = 40
"""Most classes for which a matrix is readable; above, the most confused pairs are shown."""
LISTED = 30
"""Most classes or pairs listed in one plot."""
BINS = 15


def confusion(targets: Array, predictions: Array, labels: tuple[str, ...]) -> Figure:
    """Draw the confusion matrix: rows are true classes, columns predicted ones, colors row shares; both int [N].

    Above 40 classes: the most confused pairs, as bars.
    """
    classes = len(labels)
    counts = np.bincount(targets * classes + predictions, minlength=classes**2).reshape(classes, classes)
    if classes > MATRIX:
        return _confused(counts, labels)
    with mpl.rc_context(STYLE):
        side = max(4.2, 1.8 + 0.42 * classes)
        figure = Figure(figsize=(side + 1.2, side), layout="constrained")
        axes = figure.subplots()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        _write_counts(axes, counts, shares)
        names = [shown(label, n, 18) for n, label in enumerate(labels)]
        axes.set_xticks(range(classes), names, rotation=0 if classes <= 4 else 90)
        axes.set_yticks(range(classes), names)
        axes.tick_params(length=0)
        axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
        bar = figure.colorbar(image, ax=axes, shrink=0.75, label="share of the true class")
        bar.outline.set_visible(False)
    return figure


def _write_counts(axes: Any, counts: Array, shares: Array) -> None:
    size = 11 if len(counts) <= 6 else 8 if len(counts) <= 20 else 5.5
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=size)


def _confused(counts: Array, labels: tuple[str, ...]) -> Figure:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    pairs = [divmod(int(cell), len(labels)) for cell in order if wrong.flat[cell]]
    names = [f"{shown(labels[t], t, 18)} → {shown(labels[g], g, 18)}" for t, g in pairs]
    values = [int(wrong[pair]) for pair in pairs]
    title = f"Most often confused, of {len(labels):,} classes (true → predicted)"
    return _bars(names, values, title, "rows", [f"{v:,}" for v in values])


def reliability(targets: Array, probabilities: Array, ece: float) -> Figure:
    """Draw accuracy by confidence in 15 equal bins, and the rows in each; probabilities float [N, K]."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    slot = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(slot, minlength=BINS)
    accuracy = np.bincount(slot, weights=right, minlength=BINS) / np.maximum(rows, 1)
    middle, width = (np.arange(BINS) + 0.5) / BINS, 0.9 / BINS
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 5.8), layout="constrained")
        top, low = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        there = rows > 0
        top.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 4)), zorder=3, label="perfect")
        short, tall = np.minimum(accuracy, middle)[there], np.abs(accuracy - middle)[there]
        top.bar(middle[there], short, width, color=BLUE, label="accuracy")
        for name, colour, side in (
            ("overconfident by", SAND, accuracy <= middle),
            ("underconfident by", GREEN, accuracy > middle),
        ):
            chosen = side[there]
            top.bar(middle[there][chosen], tall[chosen], width, short[chosen], color=colour, label=name)
        top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"Reliability (ECE {ece:.3f})")
        figure.legend(frameon=False, loc="outside lower center", ncols=4, fontsize=9, columnspacing=1.2)
        low.bar(middle, rows, width, color=GREY)
        low.set(xlabel="confidence", ylabel="rows")
    return figure


def per_class(targets: Array, f1: list[float], labels: tuple[str, ...]) -> Figure:
    """Draw F1 per class, lowest first, with the number of rows; for many classes the 30 lowest that have rows."""
    rows = np.bincount(targets, minlength=len(labels))
    many = len(labels) > LISTED
    order = [n for n in np.argsort(f1, kind="stable") if rows[n] or not many][:LISTED]
    names = [f"{shown(labels[n], int(n), 24)} ({rows[n]:,})" for n in order]
    values = [f1[n] for n in order]
    title = f"F1 per class, the {len(order)} lowest of {len(labels):,}" if many else "F1 per class"
    figure = _bars(names, values, title, "F1 (rows of the class in brackets)", [f"{v:.3f}" for v in values])
    figure.axes[0].set_xlim(0, 1.12)
    figure.axes[0].set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    return figure


def _bars(names: list[str], values: list[Any], title: str, unit: str, notes: list[str]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 1.6 + 0.3 * max(len(names), 1)), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh(range(len(names)), values, 0.72, color=BLUE)
        axes.bar_label(bars, notes, padding=4, fontsize=9)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=unit)
        axes.margins(x=0.08, y=0.02)
        # Title of the figure: that of the axes would not fit next to long class names.
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        if not names:
            axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center")
    return figure
