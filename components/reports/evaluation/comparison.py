"""Page on the comparison of a new version with the champion: the decision, the evidence, rows won and lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from raypath.components.core.artifacts import COMPARISON_PAGE
from raypath.components.core.files import write_atomically
from raypath.components.data.wording import plural
from raypath.components.evaluation.paired import Comparison
from raypath.components.reports.evaluation.render_parts import label, metric_name, number
from raypath.components.reports.page.html import card, name, page, quote, table, text

LISTED = 20
"""Rows won, and rows lost, that the page has."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class RowChange(_Model):
    """One row that one model predicts better than the other. row: from 0, as in predictions.parquet."""

    row: int
    label: str
    new: str
    old: str


class ComparisonReport(_Model):
    """Contents of the page."""

    source: str
    metric: str
    rival: str
    """The champion, such as version 3."""
    promoted: bool
    reason: str
    whole: Comparison
    slices: dict[str, Comparison]
    won: list[RowChange]
    lost: list[RowChange]


def write_comparison(folder: Path, report: ComparisonReport, texts: Mapping[int, str]) -> Path:
    """Write comparison.html, readable by the owner only, and return its path. texts: by row number, for the page."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / COMPARISON_PAGE
    write_atomically(path, render_comparison(report, texts))
    return path


def render_comparison(report: ComparisonReport, texts: Mapping[int, str]) -> str:
    """Return the page as HTML."""
    decision = "promoted to champion" if report.promoted else "challenger: the champion stays"
    tone = "note" if report.promoted else "warning"
    whole = report.whole
    body = [
        f'<h1>{text(report.source)}</h1><p class="lead">Comparison with {text(report.rival)} on '
        f"{plural(whole.rows, 'test row')}</p>",
        f'<h2>Decision</h2><section class="card finding {tone}"><p class="kind">{decision}</p>'
        f"<p>{text(report.reason)}</p></section>",
        card("Metric", _gains({metric_name(report.metric): whole}), _counts(whole)),
        card("Slices", _gains(report.slices), "Mean score of the rows of each slice.") if report.slices else "",
        _rows(f"Rows won from {report.rival}", report.won, whole.won, texts),
        _rows(f"Rows lost to {report.rival}", report.lost, whole.lost, texts),
        "<footer><p>Rows are numbered from 0 in the order of the test split. The comparison is paired: both models "
        "on the same rows.</p></footer>",
    ]
    return page("Comparison", report.source, [part for part in body if part])


def _counts(whole: Comparison) -> str:
    return f"{whole.won:,} won, {whole.lost:,} lost, {whole.tied:,} tied; chance of being better {whole.chance:.1%}."


def _gains(found: Mapping[str, Comparison]) -> str:
    """Make a table of gains, the smallest first."""
    head = ["", "rows", "new", "champion", "gain", "95% interval", "won", "lost"]
    rows = [
        [
            name(key),
            f"{each.rows:,}",
            number(each.new),
            number(each.old),
            f"{each.gain:+.4f}",
            f'<span class="soft">{each.low:+.4f} to {each.high:+.4f}</span>',
            f"{each.won:,}",
            f"{each.lost:,}",
        ]
        for key, each in sorted(found.items(), key=lambda item: item[1].gain)
    ]
    return table(head, rows, range(1, 8))


def _rows(title: str, found: Sequence[RowChange], count: int, texts: Mapping[int, str]) -> str:
    if not found:
        return ""
    head = ["row", "label", "new", "champion", *(["text"] if texts else [])]
    rows = [
        [
            f"{each.row:,}",
            label(each.label),
            label(each.new),
            label(each.old),
            *([quote(texts.get(each.row, ""))] if texts else []),
        ]
        for each in found
    ]
    note = f"{len(found)} of {count:,}, those with the largest difference first." if count > len(found) else ""
    return card(text(title), table(head, rows, (0,)), note)
