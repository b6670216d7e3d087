"""Charts as inline SVG, in the colors of the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Literal

Point = tuple[float, float]
_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 42, 468, 8, 178, 480, 214


def interval(value: float, low: float | None, high: float | None) -> str:
    """Draw a value in 0 to 1 as a dot, with its interval as a line."""
    line = ""
    if low is not None and high is not None:
        line = f'<i style="left: {100 * low:.1f}%; width: {100 * (high - low):.1f}%"></i>'
    return f'<span class="interval">{line}<b style="left: {100 * min(max(value, 0), 1):.1f}%"></b></span>'


def lines(series: Sequence[tuple[str, Sequence[Point]]], x: str, marker: float | None = None) -> str:
    """Draw up to four lines of points in the unit square, with a legend. marker: x of a vertical line."""
    drawn = "".join(
        f'<polyline class="line{n}" points="{" ".join(f"{_x(a):.1f},{_y(b):.1f}" for a, b in points)}"/>'
        for n, (_, points) in enumerate(series)
    )
    mark = ""
    if marker is not None:
        mark = f'<line class="limit" x1="{_x(marker):.1f}" x2="{_x(marker):.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>'
    return f"{_legend('line', series)}{_open()}{_grid()}{mark}{drawn}{_name(x)}</svg>"


def reliability(rows: Sequence[int], accuracy: Sequence[float], confidence: Sequence[float]) -> str:
    """Draw accuracy by confidence in bins of equal width, and the gap to the diagonal. All [B]."""
    width, drawn = 1 / len(rows), []
    for n, (count, right, sure) in enumerate(zip(rows, accuracy, confidence, strict=True)):
        if not count:
            continue
        left = n * width
        low, high = sorted((right, sure))
        kind = "over" if sure > right else "under"
        title = f"<title>confidence {sure:.1%}, accuracy {right:.1%}, rows {count:,}</title>"
        drawn.append(f"<g>{title}{_rect('bars', left, 0, width, low)}{_rect(kind, left, low, width, high - low)}</g>")
    diagonal = f'<line class="diagonal" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
    return f"{_open()}{_grid()}{''.join(drawn)}{diagonal}{_name('confidence')}</svg>"


def histogram(counts: Sequence[int], edges: Sequence[str], x: str) -> str:
    """Draw counts as bars of equal width. edges: names of the limits of the bins, [B + 1]; some are shown."""
    top, width = max(counts, default=1) or 1, 1 / max(len(counts), 1)
    drawn = "".join(
        f"<g><title>{escape(edges[n])} to {escape(edges[n + 1])}: {count:,}</title>"
        f"{_rect('bars', n * width, 0, width, count / top)}</g>"
        for n, count in enumerate(counts)
    )
    step = max(1, len(counts) // 6)
    ticks = "".join(_tick(n * width, escape(edges[n])) for n in range(0, len(edges), step))
    base = f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>'
    return f"{_open()}{drawn}{base}{ticks}{_name(x)}</svg>"


def grouped(series: Sequence[tuple[str, Sequence[int]]], edges: Sequence[str], x: str) -> str:
    """Draw counts of up to four series as bars side by side, with a legend. edges: names of limits, [B + 1]."""
    top = max(count for _, counts in series for count in counts) or 1
    width = 1 / max(len(edges) - 1, 1)
    wide, drawn = 0.86 * width / max(len(series), 1), []
    for k, (title, counts) in enumerate(series):
        for n, count in enumerate(counts):
            if count:
                said = f"<title>{escape(title)}, {escape(edges[n])} to {escape(edges[n + 1])}: {count:,}</title>"
                drawn.append(f"<g>{said}{_rect(f'series{k}', n * width + k * wide, 0, wide, count / top)}</g>")
    step = max(1, (len(edges) - 1) // 8)
    ticks = "".join(_tick(n * width, escape(edges[n])) for n in range(0, len(edges), step))
    base = f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>'
    high = f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{top:,}</text>'
    return f"{_legend('series', series)}{_open()}{''.join(drawn)}{base}{high}{ticks}{_name(x)}</svg>"


def density(cells: Sequence[tuple[int, int, float]], size: int, ends: tuple[str, str], x: str, y: str) -> str:
    """Draw points as squares of a grid of size by size, with the diagonal. cells: column, row, strength 0 to 1."""
    side = 1 / size
    drawn = "".join(
        f'<rect class="bars" x="{_x(a * side):.1f}" y="{_y((b + 1) * side):.1f}" width="{(_RIGHT - _LEFT) * side:.1f}" '
        f'height="{(_BOTTOM - _TOP) * side:.1f}" opacity="{0.12 + 0.88 * strength:.2f}"/>'
        for a, b, strength in cells
    )
    diagonal = f'<line class="diagonal" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
    frame = f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_RIGHT - _LEFT}" height="{_BOTTOM - _TOP}"/>'
    ticks = _tick(0, escape(ends[0]), "start") + _tick(1, escape(ends[1]), "end")
    side_name = (
        f'<text x="{-(_TOP + _BOTTOM) / 2}" y="14" transform="rotate(-90)" text-anchor="middle">{escape(y)}</text>'
    )
    return f"{_open()}{frame}{drawn}{diagonal}{ticks}{side_name}{_name(x)}</svg>"


def _legend(style: str, series: Sequence[tuple[str, object]]) -> str:
    names = "".join(f'<li class="{style}{n}">{escape(name)}</li>' for n, (name, _) in enumerate(series))
    return f'<ul class="legend">{names}</ul>'


def _open() -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'


def _x(value: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * value


def _y(value: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * value


def _rect(kind: str, left: float, low: float, width: float, height: float) -> str:
    wide = (_RIGHT - _LEFT) * width
    gap = min(1.5, wide / 4)
    return (
        f'<rect class="{kind}" x="{_x(left) + gap / 2:.1f}" y="{_y(low + height):.1f}" width="{wide - gap:.1f}" '
        f'height="{(_BOTTOM - _TOP) * height:.1f}"/>'
    )


def _grid() -> str:
    marks = (0.0, 0.25, 0.5, 0.75, 1.0)
    rules = "".join(
        f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{_y(v):.1f}" y2="{_y(v):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in marks
    )
    return rules + "".join(_tick(v, f"{v:g}") for v in marks)


def _tick(x: float, label: str, anchor: Literal["start", "middle", "end"] = "middle") -> str:
    return f'<text x="{_x(x):.1f}" y="{_BOTTOM + 15}" text-anchor="{anchor}">{label}</text>'


def _name(x: str) -> str:
    return f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x)}</text>'
