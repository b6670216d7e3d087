"""Style shared by all plots: colors, fonts, and saving a figure to a file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, BLUE, GREEN, SAND, GREY = "#1f2933", "#2f6db5", "#9cc5b3", "#f2cfa4", "#d5dae0"


STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG at 150 dots per inch and return its path."""
    with mpl.rc_context(STYLE):
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=150, facecolor="white")
    return path


def shown(label: str, number: int, longest: int) -> str:
    """Format a label for the plot's font: truncated when long, `class 3` if a glyph is missing."""
    text = " ".join(label.split())
    if not text or any(not _glyph(sign) for sign in text):
        return f"class {number}"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


@functools.cache
def _glyph(sign: str) -> bool:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return bool(font.get_char_index(ord(sign)))
