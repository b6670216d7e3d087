"""Sections of the page of an evaluation report."""

from __future__ import annotations

from collections.abc import Sequence

from raypath.components.data.wording import plural
from raypath.components.reports.evaluation.contents import (
    Calibration,
    ClassResult,
    Estimate,
    EvaluationReport,
    Residuals,
    Slice,
)
from raypath.components.reports.page import charts
from raypath.components.reports.page.html import card, folded, name, table

_SHOWN_CLASSES, _SHOWN_SLICES = 25, 24
_NAMES = {"r2": "R²", "ece": "ECE", "mae": "mean absolute error", "rmse": "RMSE", "mse": "mean squared error"}
_EVERY = 10
"""Every tenth threshold is in the table."""


def number(value: float) -> str:
    """Format a metric: four digits behind the point, fewer for large numbers."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.6g}"


def metric_name(key: str) -> str:
    """Format the name of a metric."""
    return _NAMES.get(key) or key.replace("_", " ").replace(" f1", " F1")


def estimate_cells(estimate: Estimate) -> list[str]:
    """Return three cells: the value, its interval, and a picture of both in 0 to 1."""
    low, high, value = estimate.low, estimate.high, estimate.value
    if low is None or high is None:
        return [number(value), "", ""]
    picture = charts.interval(value, low, high) if low >= 0 and high <= 1 else ""
    return [number(value), f'<span class="soft">{number(low)} to {number(high)}</span>', picture]


def classes(report: EvaluationReport) -> str:
    """Make the table of the classes, the lowest F1 first."""
    if not report.classes:
        return ""
    ordered = sorted((each for each in report.classes if each.rows), key=lambda each: each.f1.value)
    without = [each for each in report.classes if not each.rows]
    shown, rest = ordered[:_SHOWN_CLASSES], [*ordered[_SHOWN_CLASSES:], *without]
    more = folded(plural(len(rest), "more class", "more classes"), _class_table(rest)) if rest else ""
    note = "The lowest F1 first. Intervals of 95% below each value: wide for a class with few rows."
    return card("Classes", _class_table(shown) + more, note)


def _class_table(found: Sequence[ClassResult]) -> str:
    head = ["class", "rows", "predicted", "precision", "recall", "F1", ""]
    rows = [
        [
            label(each.label),
            f"{each.rows:,}",
            f"{each.predicted:,}",
            *(_stacked(value) for value in (each.precision, each.recall, each.f1)),
            charts.interval(each.f1.value, each.f1.low, each.f1.high),
        ]
        for each in found
    ]
    return table(head, rows, range(1, 6))


def _stacked(estimate: Estimate) -> str:
    return f'{estimate.value:.3f}<br><small class="soft">{estimate.low or 0:.2f} to {estimate.high or 0:.2f}</small>'


def label(value: str) -> str:
    """Show the name of a class, which may be long or empty."""
    return f'<span class="label">{name(value)}</span>' if value.strip() else '<span class="soft">(empty)</span>'


def slice_name(each: Slice) -> str:
    """Name a slice: column and value."""
    return f"{name(each.column)} {name(each.value)}"


def slice_said(each: Slice) -> str:
    """Name a slice with its metric and that of the other rows."""
    return f"{slice_name(each)} ({number(each.score.value)}, others {number(each.others)})"


def slices(report: EvaluationReport) -> str:
    """Make the table of the slices, those that are worse first."""
    if not report.slices:
        return ""
    note = (
        f"Each slice against all other rows, by {report.slice_metric}. A slice is named as worse where the chance of "
        "such a difference by luck is below 5%, corrected for the number of slices (Holm)."
    )
    shown, rest = report.slices[:_SHOWN_SLICES], report.slices[_SHOWN_SLICES:]
    more = folded(plural(len(rest), "more slice"), _slice_table(report, rest)) if rest else ""
    return card("Slices", _slice_table(report, shown) + more, note)


def _slice_table(report: EvaluationReport, found: Sequence[Slice]) -> str:
    head = [
        "column",
        "value",
        "rows",
        report.slice_metric.partition(" in ")[0],
        "95% interval",
        "other rows",
        "corrected p",
        "",
    ]
    rows = [
        [
            name(each.column),
            label(each.value),
            f"{each.rows:,}",
            number(each.score.value),
            f'<span class="soft">{number(each.score.low or 0)} to {number(each.score.high or 0)}</span>',
            number(each.others),
            '<span class="soft">too few rows</span>' if each.p is None else _chance(each.p),
            '<span class="bad">worse</span>' if each.worse else "",
        ]
        for each in found
    ]
    return table(head, rows, (2, 3, 4, 5, 6))


def _chance(p: float) -> str:
    return "&lt;0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def calibration(report: EvaluationReport) -> str:
    """Draw accuracy by confidence, with the temperature and the share of rows above a confidence."""
    found = report.calibration
    if found is None:
        return ""
    bins = found.bins
    chart = charts.reliability(
        [each.rows for each in bins], [each.accuracy for each in bins], [each.confidence for each in bins]
    )
    sure = sum(each.rows * each.confidence for each in bins) - sum(each.rows * each.accuracy for each in bins)
    total = max(sum(each.rows for each in bins), 1)
    way = "higher" if sure > 0 else "lower"
    said = f"ECE {found.ece:.3f}: on average the confidence is {abs(sure) / total:.1%} {way} than the accuracy."
    key = "Orange: confidence beyond the accuracy of the rows; pale: accuracy beyond their confidence."
    rows = [[f"at least {each.confidence:g}", f"{each.rows:.1%}", f"{each.accuracy:.1%}"] for each in report.coverage]
    aside = table(["confidence", "rows", "accuracy of these"], rows, (1, 2)) if rows else ""
    return card(
        "Calibration",
        f'<div class="two"><div>{chart}<p class="rows">{key}</p></div><div>{_temperature(found)}{aside}</div></div>',
        said,
    )


def _temperature(found: Calibration) -> str:
    fitted = found.temperature
    if fitted is None:
        return '<p class="said">No temperature: there is no validation split, or it has fewer than 30 rows.</p>'
    change = (
        f"It changes the ECE of the test split from {found.ece:.3f} to {fitted.ece:.3f}, and the log loss from "
        f"{found.log_loss:.3f} to {fitted.log_loss:.3f}."
    )
    rows = plural(fitted.valid_rows, "validation row")
    if fitted.helps:
        lead = f"Temperature <b>{fitted.value:.2f}</b>, fitted on {rows}: it fits better than 1 beyond chance."
    else:
        lead = f"The temperature that fits {rows} best is {fitted.value:.2f}, not better than 1 beyond chance."
    return f'<p class="said">{lead} {change} Scores in service are those of temperature 1.</p>'


def thresholds(report: EvaluationReport) -> str:
    """Draw precision, recall and F1 by threshold."""
    found = report.thresholds
    if not found:
        return ""
    series = [
        ("precision", [(each.threshold, each.precision) for each in found]),
        ("recall", [(each.threshold, each.recall) for each in found]),
        ("F1", [(each.threshold, each.f1) for each in found]),
    ]
    whose = f"of class {name(report.classes[1].label)}" if len(report.matrix) == 2 else "of all classes together"
    used = f" The threshold in use is {report.decision:.2f}." if report.decision is not None else ""
    note = (
        f"Decisions {whose} at each threshold of the probability.{used} A threshold that is chosen here fits these "
        "rows; -s finetune.objective.threshold=valid chooses it on the validation split."
    )
    rows = [
        [f"{each.threshold:.2f}", f"{each.precision:.3f}", f"{each.recall:.3f}", f"{each.f1:.3f}", f"{each.chosen:.1%}"]
        for each in found[_EVERY - 1 :: _EVERY]
    ]
    head = ["threshold", "precision", "recall", "F1", "at or above"]
    chart = charts.lines(series, "threshold", report.decision)
    content = f'<div class="two"><div>{chart}</div>{table(head, rows, range(5))}</div>'
    return card("Thresholds", content, note)


def residuals(report: EvaluationReport) -> str:
    """Draw the errors of each number, and predicted against actual ones."""
    return "".join(map(_residuals, report.residuals))


def _residuals(found: Residuals) -> str:
    edges = [f"{edge:.3g}" for edge in found.edges]
    top = max((count for *_, count in found.cells), default=1)
    cells = [(x, y, (count / top) ** 0.5) for x, y, count in found.cells]
    ends = (f"{found.actual[0]:.4g}", f"{found.actual[1]:.4g}")
    pictures = (
        f"<div>{charts.density(cells, 40, ends, 'actual', 'predicted')}</div>"
        f"<div>{charts.histogram(found.counts, edges, 'predicted less actual')}</div>"
    )
    note = f"Mean absolute error {_with_interval(found.mae)}; mean error {_with_interval(found.bias)}."
    return card(f"Residuals of {name(found.target)}", f'<div class="two">{pictures}</div>', note)


def _with_interval(estimate: Estimate) -> str:
    return f"{number(estimate.value)} (95%: {number(estimate.low or 0)} to {number(estimate.high or 0)})"
