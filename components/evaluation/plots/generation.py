"""Plots of generated answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from raypath.components.evaluation.plots.style import BLUE, GREY, SAND, STYLE

_COLORS = {"references": GREY, "model": BLUE, "base": SAND}


def lengths(edges: Sequence[int], counts: Mapping[str, Sequence[int]]) -> Figure:
    """Draw the numbers of answers by their number of words. counts: for references, model and perhaps base, [B] each;
    edges: [B + 1], the last bin has the longer ones too."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.subplots()
        width = (edges[1] - edges[0]) * 0.86 / max(len(counts), 1)
        for n, (name, values) in enumerate(counts.items()):
            places = [edge + n * width for edge in edges[:-1]]
            axes.bar(places, values, width, align="edge", label=name, color=_COLORS.get(name, BLUE))
        axes.set(xlabel="words of an answer", ylabel="answers", title="Lengths of answers")
        axes.legend(frameon=False)
    return figure
