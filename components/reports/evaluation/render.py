"""Render the report as one HTML page without scripts, and write it with report.json.

Texts are given apart from the report, by row number: the page has those that it is given, report.json has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raypath.components.data.wording import plural, verb
from raypath.components.reports.evaluation import render_parts as parts
from raypath.components.reports.evaluation import render_rows as rows
from raypath.components.reports.evaluation.contents import Estimate, EvaluationReport
from raypath.components.reports.page.files import write_files
from raypath.components.reports.page.html import card, folded, heading, page, summary, table, text

_FIRST = ("accuracy", "macro_f1", "micro_f1", "mean_average_precision", "subset_accuracy", "r2", "mae", "rmse")
"""Metrics that are shown first where they have no interval."""


def write_report(folder: Path, report: EvaluationReport, texts: Mapping[int, str]) -> None:
    """Write report.html and report.json, readable by the owner only. texts: by row number; the page shows them."""
    write_files(folder, render(report, texts), report)


def render(report: EvaluationReport, texts: Mapping[int, str]) -> str:
    """Return the page as HTML."""
    body = [
        _head(report),
        _summary(report),
        _metrics(report.metrics),
        parts.classes(report),
        parts.slices(report),
        parts.calibration(report),
        parts.thresholds(report),
        parts.residuals(report),
        rows.confusions(report, texts),
        rows.errors(report, texts),
        rows.label_errors(report, texts),
        _foot(report, bool(texts)),
    ]
    return page("Evaluation", report.source, [part for part in body if part])


def _head(report: EvaluationReport) -> str:
    facts = [
        report.task.replace("_", " "),
        f"base {report.base}" if report.base else "",
        f"test split {report.test[:12]}",
    ]
    return heading(report.source, f"Evaluation report, {plural(report.rows, 'test row')}", facts)


def _summary(report: EvaluationReport) -> str:
    """Say in a few lines what is to be known first: the main metric, what is worse, what to look at."""
    found = []
    first = _ordered(report.metrics)[:2]
    if first:
        found.append(("note", "metrics", ", ".join(_said(name, report.metrics[name]) for name in first)))
    worse = [each for each in report.slices if each.worse]
    if worse:
        names = "; ".join(map(parts.slice_said, worse[:4]))
        more = f"; and {len(worse) - 4} more" if len(worse) > 4 else ""
        are = f"{plural(len(worse), 'slice')} {verb(len(worse), 'is', 'are')}"
        what = f"{are} significantly worse than the other rows by {report.slice_metric}"
        found.append(("warning", "slices", f"{what}: {names}{more}"))
    errors = report.label_errors
    if errors is not None and errors.count:
        labels = f"{plural(errors.count, 'label')} of the test split {rows.doubt(errors)}"
        found.append(("warning" if rows.is_trusted(errors) else "note", "labels", labels))
    temperature = report.calibration.temperature if report.calibration else None
    if report.calibration and temperature and temperature.helps and temperature.ece < report.calibration.ece:
        change = f"{report.calibration.ece:.3f} to {temperature.ece:.3f}"
        found.append(("note", "calibration", f"a temperature of {temperature.value:.2f} lowers the ECE from {change}"))
    return summary(found)


def _said(name: str, estimate: Estimate) -> str:
    spread = ""
    if estimate.low is not None and estimate.high is not None:
        spread = f' <span class="soft">(95%: {parts.number(estimate.low)} to {parts.number(estimate.high)})</span>'
    return f"{parts.metric_name(name)} <b>{parts.number(estimate.value)}</b>{spread}"


def _ordered(metrics: Mapping[str, Estimate]) -> list[str]:
    """Return the names of those with an interval, then of other common ones, then of the rest."""
    with_interval = [name for name, each in metrics.items() if each.low is not None]
    return list(dict.fromkeys([*with_interval, *(name for name in _FIRST if name in metrics), *metrics]))


def _metrics(metrics: Mapping[str, Estimate]) -> str:
    names = _ordered(metrics)
    cells = [[text(parts.metric_name(name)), *parts.estimate_cells(metrics[name])] for name in names]
    head = ["metric", "value", "95% interval", ""]
    shown, rest = cells[:6], cells[6:]
    more = folded(plural(len(rest), "more metric"), table(head, rest, (1,))) if rest else ""
    return card("Metrics", table(head, shown, (1,)) + more)


def _foot(report: EvaluationReport, texts: bool) -> str:
    skipped = "".join(f"<p>Left out: {text(line)}</p>" for line in report.skipped)
    where = "" if texts else " Texts are in the report of the run's own files, and here with evaluate.texts=true."
    return (
        f"<footer>{skipped}<p>Rows are numbered from 0 in the order of the test split, as in predictions.parquet. All "
        f"values are in report.json.{where}</p></footer>"
    )
