"""Sections of the page that name single rows: confusions, errors, probable label errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raypath.components.data.wording import percent, plural, verb
from raypath.components.inspection.findings.model import CERTAIN, TRUSTED
from raypath.components.reports.evaluation.contents import EvaluationReport, LabelErrors, RowError
from raypath.components.reports.evaluation.render_parts import label
from raypath.components.reports.page.html import card, folded, quote, table, text

_SHOWN = 8
_EXAMPLE = 240
"""Characters of an example."""


def confusions(report: EvaluationReport, texts: Mapping[int, str]) -> str:
    """Show the matrix, and the pairs that are confused most often with examples."""
    if not report.confusions:
        return ""
    total = sum(each.rows for each in report.classes)
    known = {each.label: each.rows for each in report.classes}
    rows = [
        [
            label(each.label),
            label(each.predicted),
            f"{each.count:,}",
            percent(each.count, known.get(each.label, total)),
            _examples(each.rows, texts),
        ]
        for each in report.confusions
    ]
    head = [
        "class",
        "predicted",
        "rows",
        "of the class",
        "the most certain" if texts else "rows, the most certain first",
    ]
    sets = report.slice_metric == "row F1"
    note = "Rows that lack the first class and have the second instead." if sets else ""
    more = folded(plural(len(rows) - _SHOWN, "more pair"), table(head, rows[_SHOWN:], (2, 3))) if rows[_SHOWN:] else ""
    return card("Confusions", _matrix(report) + table(head, rows[:_SHOWN], (2, 3)) + more, note)


def _matrix(report: EvaluationReport) -> str:
    if not report.matrix:
        return ""
    names = [label(each.label) for each in report.classes]
    rows = []
    for n, counts in enumerate(report.matrix):
        whole = max(sum(counts), 1)
        cells = [f'<span style="{_shade(count / whole, n == k)}">{count:,}</span>' for k, count in enumerate(counts)]
        rows.append([names[n], *cells])
    note = '<p class="rows">Rows: classes of the test split; columns: predictions.</p>'
    return table(["", *names], rows, style="matrix") + note


def _shade(share: float, right: bool) -> str:
    tone = "--bar" if right else "--error"
    return f"background: color-mix(in srgb, var({tone}) {60 * share:.0f}%, transparent)"


def _examples(rows: Sequence[int], texts: Mapping[int, str]) -> str:
    if not texts:
        return ", ".join(map(str, rows))
    return "".join(quote(texts.get(row, ""), _EXAMPLE, f"row {row}") for row in rows)


def errors(report: EvaluationReport, texts: Mapping[int, str]) -> str:
    """List the worst errors."""
    if not report.errors:
        return card("Worst errors", "<p>No row is wrong.</p>") if report.classes else ""
    note = "Wrong with the highest confidence." if report.classes else "The largest errors."
    return card("Worst errors", _row_table(report.errors, texts), note)


def is_trusted(found: LabelErrors) -> bool:
    """Return True if the model agrees with enough labels for its objections to be probable errors."""
    return found.agreement >= TRUSTED


def doubt(found: LabelErrors) -> str:
    """Say how certain the label errors are: the words after the number of labels."""
    return f"{verb(found.count, 'is', 'are')} probably wrong" if is_trusted(found) else "may be wrong"


def label_errors(report: EvaluationReport, texts: Mapping[int, str]) -> str:
    """List probable label errors."""
    found = report.label_errors
    if found is None or not found.count:
        return ""
    note = (
        f"{plural(found.count, 'label')} {doubt(found)}: the model, which agrees with {found.agreement:.0%} of the "
        f"labels, gives another class at least {CERTAIN:.0%} (confident learning). Look at them before the model is "
        "blamed."
    )
    return card("Probable label errors", _row_table(found.rows, texts), text(note))


def _row_table(found: Sequence[RowError], texts: Mapping[int, str]) -> str:
    numeric = bool(found) and found[0].error is not None
    head = ["row", "label", "predicted", "error" if numeric else "confidence", *(["text"] if texts else [])]
    rows = [
        [
            f"{each.row:,}",
            label(each.label),
            label(each.predicted),
            f"{each.error:+.4g}" if each.error is not None else f"{each.confidence or 0:.3f}",
            *([quote(texts.get(each.row, ""))] if texts else []),
        ]
        for each in found
    ]
    return table(head, rows, (0, 3))
