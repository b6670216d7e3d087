"""A figure in numbers and words, to be compared with the one of before: `described(figure)`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure


def described(figure: Figure) -> dict[str, Any]:
    """Return everything that a reader sees of a figure, numbers to three digits."""
    title = figure._suptitle  # type: ignore[attr-defined]
    return {
        "size": _numbers(figure.get_size_inches()),
        "title": None if title is None else _text(title),
        "legends": [_legend(each) for each in figure.legends],
        "axes": [_axes(each) for each in figure.axes if each.get_visible()],
        "hidden": sum(not each.get_visible() for each in figure.axes),
    }


def _axes(axes: Any) -> dict[str, Any]:
    legend = axes.get_legend()
    return {
        "title": [_text(each) for each in (axes.title, axes._left_title) if each.get_text()],
        "labels": [_text(each) for each in (axes.xaxis.label, axes.yaxis.label)],
        "limits": [_numbers(axes.get_xlim()), _numbers(axes.get_ylim())],
        "ticks": [_ticks(axis) for axis in (axes.xaxis, axes.yaxis)],
        "spines": {name: (spine.get_visible(), to_hex(spine.get_edgecolor())) for name, spine in axes.spines.items()},
        "below": axes.get_axisbelow(),
        "texts": [_text(each) for each in axes.texts],
        "lines": [_line(each) for each in axes.lines],
        "bars": [_bar(each) for each in axes.patches],
        "points": [_points(each) for each in axes.collections if hasattr(each, "get_sizes")],
        "images": [[each.get_array().round(3).tolist(), each.cmap.name, *each.get_clim()] for each in axes.images],
        "legend": None if legend is None else _legend(legend),
        "place": _numbers(axes.get_gridspec().get_width_ratios() or []) if axes.get_gridspec() is not None else [],
    }


def _ticks(axis: Any) -> dict[str, Any]:
    first = next(iter(axis.get_major_ticks()), None)
    names = [label.get_text() for label in axis.get_ticklabels()]
    found: dict[str, Any] = {"at": _numbers(axis.get_ticklocs()), "names": names}
    if first is not None:
        label = first.label1
        grid = first.gridline
        found |= {"length": first.get_tick_padding(), "color": to_hex(label.get_color())}
        found |= {"rotation": label.get_rotation(), "size": label.get_fontsize()}
        found |= {"grid": (grid.get_visible(), to_hex(grid.get_color()), grid.get_linewidth())}
    return found


def _text(text: Any) -> list[Any]:
    box = text.get_bbox_patch()
    back = [] if box is None else [to_hex(box.get_facecolor()), to_hex(box.get_edgecolor()), box.get_alpha()]
    back += [] if box is None else [box.get_boxstyle().pad]
    where = [text.get_ha(), text.get_va(), text.get_fontsize(), text.get_fontweight(), text.get_zorder()]
    family = text.get_fontfamily()
    return [text.get_text(), _numbers(text.get_position()), to_hex(text.get_color()), *where, *family, *back]


def _line(line: Any) -> list[Any]:
    points = [_numbers(line.get_xdata()), _numbers(line.get_ydata())]
    look = [to_hex(line.get_color()), line.get_linewidth(), str(line._dash_pattern), line.get_alpha()]
    mark = [str(line.get_marker()), line.get_markersize(), to_hex(line.get_markerfacecolor())]
    more = [line.get_drawstyle(), line.get_zorder(), line.get_clip_on(), line.get_solid_capstyle()]
    return [*points, *look, *mark, *more, line.get_label()]


def _bar(bar: Any) -> list[Any]:
    place = [bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()]
    return [_numbers(place), to_hex(bar.get_facecolor())]


def _points(points: Any) -> list[Any]:
    look = [_numbers(points.get_sizes()), points.get_alpha(), to_hex(points.get_facecolor()[0])]
    return [_numbers(points.get_offsets().ravel()), *look, _numbers(points.get_linewidths())]


def _legend(legend: Any) -> list[Any]:
    texts = [(each.get_text(), each.get_fontsize()) for each in legend.get_texts()]
    look = [legend.get_frame_on(), legend._ncols, legend.columnspacing, str(legend._loc), legend._outside_loc]
    return [texts, *look, [_line(each) for each in legend.get_lines()]]


def _numbers(values: Any) -> list[float]:
    return [float(f"{value:.3g}") for value in np.asarray(values, np.float64).tolist()]
