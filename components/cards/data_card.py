"""Data card (README.md) in the form of the Hugging Face Hub: columns, splits, classes, personal data and faults."""

from __future__ import annotations

from huggingface_hub import DatasetCardData

from raypath.components.cards.data_facts import DataFacts
from raypath.components.inspection.report import InspectionReport

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Classes of size of the Hub by their upper limit in rows."""
CATEGORIES = {
    "text_classification": "text-classification",
    "multi_label": "text-classification",
    "regression": "text-classification",
    "language_model": "fill-mask",
    "text_generation": "text-generation",
    "preference": "reinforcement-learning",
    "text_to_text": "translation",
}
"""Categories of the Hub by task."""
NOT_STATED = "Not stated. `raypath card --about`, `--license` and `--contact` state it."


def data_card(facts: DataFacts, task: str = "") -> str:
    """Return the card as Markdown. task: what the rows were used for, a name of `components/tasks`."""
    parts = [f"---\n{_front(facts, task)}\n---", f"# {facts.name}", _summary(facts), "## Columns", _columns(facts)]
    parts += ["## Splits", _splits(facts)]
    if facts.report is not None:
        parts += _report(facts.report)
    parts += ["## Personal data", _personal(facts), "## Source and use", _statement(facts)]
    if facts.files:
        parts += ["## Files", _files(facts)]
    return "\n\n".join(parts) + "\n"


def _front(facts: DataFacts, task: str) -> str:
    languages = facts.report.languages if facts.report else {}
    frequent = [code for code, rows in languages.items() if len(code) in (2, 3) and rows * 100 >= facts.rows]
    category = CATEGORIES.get(task)
    data = DatasetCardData(
        pretty_name=facts.name,
        language=frequent or None,
        license=facts.statement.license.lower() or None,
        task_categories=[category] if category else None,
        size_categories=next((name for limit, name in SIZES if facts.rows < limit), "n>1M"),
    )
    return data.to_yaml().strip()


def _summary(facts: DataFacts) -> str:
    stated = f"\n\n{facts.statement.about}" if facts.statement.about else ""
    return f"{facts.rows:,} rows of `{facts.source}`, read on {facts.made.isoformat()}.{stated}"


def _columns(facts: DataFacts) -> str:
    known = {each.name: each for each in facts.report.columns} if facts.report else {}
    lines = ["| column | kind | role | missing |", "| --- | --- | --- | --- |"]
    for each in facts.columns:
        missing = f"{known[each.name].missing:,}" if each.name in known else ""
        lines.append(f"| {_cell(each.name)} | {each.kind} | {each.role} | {missing} |")
    return "\n".join(lines)


def _splits(facts: DataFacts) -> str:
    how = "as the data prescribes" if facts.presplit else "by the step `split`"
    lines = [f"Divided {how}.", "", "| split | rows |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {rows:,} |" for name, rows in facts.splits.items())])


def _report(report: InspectionReport) -> list[str]:
    parts = []
    if report.classes:
        shown = report.classes[:30]
        lines = ["| class | rows |", "| --- | --- |", *(f"| {_cell(each.label)} | {each.rows:,} |" for each in shown)]
        if len(report.classes) > len(shown):
            lines.append(f"| {len(report.classes) - len(shown)} others | |")
        parts += ["## Classes", "\n".join(lines)]
    if report.lengths is not None:
        found = report.lengths.quantiles
        parts += ["## Lengths", f"{', '.join(f'{name} {n:,}' for name, n in found.items())} {report.lengths.unit}."]
    if report.languages:
        named = ", ".join(f"{name} {rows:,}" for name, rows in report.languages.items())
        parts += ["## Languages", f"Rows by guessed language: {named}."]
    faults = [f"- {each.severity}: {each.text}" for each in report.findings]
    return [*parts, "## Known faults", "\n".join(faults) or "The data report found none."]


def _personal(facts: DataFacts) -> str:
    lines = []
    if facts.redaction is not None:
        kinds = ", ".join(facts.redaction.kinds)
        lines.append(f"Replaced before anything else, by {facts.redaction.replacement}: {kinds}.")
    if facts.report is None:
        lines.append("Not searched for; `inspect.enabled` was off.")
    elif facts.report.personal_data:
        counts = ", ".join(f"{kind} in {rows:,} rows" for kind, rows in facts.report.personal_data.items())
        lines.append(f"Found by patterns: {counts}.")
    else:
        lines.append("None found by patterns, which do not find names.")
    return " ".join(lines)


def _statement(facts: DataFacts) -> str:
    stated = facts.statement
    if not (stated.license or stated.about or stated.contact):
        return NOT_STATED
    lines = [stated.about, f"License: {stated.license or 'not stated'}.", f"Contact: {stated.contact or 'not stated'}."]
    return "\n\n".join(each for each in lines if each)


def _files(facts: DataFacts) -> str:
    lines = ["| file | bytes | SHA-256 |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {each.name} | {each.bytes:,} | `{each.sha256}` |" for each in facts.files)])


def _cell(text: str) -> str:
    """Return a text for a cell: a pipe or a line break would end it, and markup would be rendered."""
    plain = "".join(each if each.isprintable() else " " for each in text)[:80]
    return "".join(f"\\{each}" if each in "|`*_<>[]\\" else each for each in plain)
