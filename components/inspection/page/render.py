"""Render the report as one HTML page without scripts, and write it with report.json and rows.csv."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from raypath.components.core.arrays import Array
from raypath.components.core.files import new_file, write_atomically
from raypath.components.data.columns.spreadsheet import safe_cell
from raypath.components.data.wording import plural
from raypath.components.inspection.report import ClassCount, Column, Finding, InspectionReport, Lengths, Place, Severity
from raypath.components.inspection.rows import Places
from raypath.components.reports.page.html import bars, card, page, table
from raypath.components.reports.page.html import name as _name
from raypath.components.reports.page.html import text as _text

_SHOWN_CLASSES = 15
_SHOWN_COLUMNS = 12
_NAMES = {
    "email": "e-mail address",
    "url": "URL",
    "ip": "IP address",
    "card": "card number",
    "iban": "IBAN",
    "resident_id": "Chinese resident ID",
    "phone": "phone number",
}


def write_report(folder: Path, report: InspectionReport, places: Places, rows: Iterable[tuple[str, Array]]) -> None:
    """Write report.html, report.json and rows.csv: the kind, the source and the number of every row found."""
    # Replaced, and not written through a link that another user of a shared folder has made.
    write_atomically(folder / "report.html", render(report))
    write_atomically(folder / "report.json", report.model_dump_json(indent=2) + "\n")
    with new_file(folder / "rows.csv") as raw:
        file = io.TextIOWrapper(raw, "utf-8", newline="", write_through=True)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["finding", "source", "row"])
        for kind, positions in rows:
            for position in positions:
                place = places.of(int(position))
                writer.writerow([kind, safe_cell(place.source), place.row])
        file.detach()


def render(report: InspectionReport) -> str:
    """Return the page as HTML."""
    body = [
        _head(report),
        _findings(report.findings),
        _columns(report.columns),
        f'<div class="columns">{_classes(report.classes)}{_lengths(report.lengths)}{_languages(report.languages)}'
        f"{_conversations(report)}"
        f"{_personal(report.personal_data, report.rows)}</div>",
        _foot(report),
    ]
    return page("Data report", report.source, body)


def _head(report: InspectionReport) -> str:
    splits = "".join(f"<li>{name} {rows:,}</li>" for name, rows in report.splits.items())
    counts = "".join(
        f'<li class="{severity}" style="color: var(--tone)">{count} {severity}{"" if count == 1 else "s"}</li>'
        for severity in Severity
        if (count := report.count(severity))
    )
    return (
        f"<h1>{_text(report.source)}</h1>"
        f'<p class="lead">Data report, {plural(report.rows, "row")}</p><ul class="counts">{counts}{splits}</ul>'
    )


def _findings(findings: Sequence[Finding]) -> str:
    cards = "".join(map(_finding, findings)) or '<p class="card">Nothing was found.</p>'
    return f"<h2>Findings</h2>{cards}"


def _finding(finding: Finding) -> str:
    rows, more = row_numbers(finding.rows), " and more" if finding.count > len(finding.rows) else ""
    shown = f'<p class="rows">{_text(rows[0].upper() + rows[1:])}{more}</p>' if rows else ""
    examples = f'<p class="rows">Such as {_text(", ".join(finding.examples))}</p>' if finding.examples else ""
    settings = "".join(
        f"<code>-s {_text(shlex.quote(f'{key}={_value(value)}'))}</code>" for key, value in finding.settings.items()
    )
    return (
        f'<section class="card finding {finding.severity}"><p class="kind">{finding.severity} · '
        f"{finding.kind.replace('_', ' ')}</p><p>{_text(finding.text)}</p>{shown}{examples}{settings}</section>"
    )


def row_numbers(places: Sequence[Place]) -> str:
    """Format places: rows 3, 17 of a.csv; row 2 of b.csv."""
    numbers: dict[str, list[str]] = {}
    for place in places:
        numbers.setdefault(place.source, []).append(str(place.row))
    return "; ".join(
        f"row{'s' if len(rows) > 1 else ''} {', '.join(rows)} of {source}" for source, rows in numbers.items()
    )


def _value(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _columns(columns: Sequence[Column]) -> str:
    """Make the table of the columns: those with a role first; of many others most are folded."""
    if not columns:
        return ""
    ordered = sorted(columns, key=lambda each: not each.role)
    shown = max(_SHOWN_COLUMNS, sum(bool(each.role) for each in columns))
    table, rest = _table(ordered[:shown]), ordered[shown:]
    if rest:
        more = plural(len(rest), "more column")
        table += f"<details><summary>{more}</summary>{_table(rest)}</details>"
    return f'<h2>Columns</h2><div class="card scroll">{table}</div>'


def _table(columns: Sequence[Column]) -> str:
    lines = "".join(
        f'<tr><td class="name">{_name(each.name)}</td><td>{each.role}</td><td>{each.kind}</td>'
        f'<td class="number">{each.missing:,}</td><td class="number">{_distinct(each.distinct)}</td>'
        f'<td class="why">{_text(each.why)}</td></tr>'
        for each in columns
    )
    head = '<th>column</th><th>role</th><th>kind</th><th class="number">missing</th><th class="number">distinct</th>'
    return f"<table><thead><tr>{head}<th>why</th></tr></thead><tbody>{lines}</tbody></table>"


def _distinct(number: int) -> str:
    return f"{number:,}" if number <= 10_000 else "10,000+"


def _classes(classes: Sequence[ClassCount]) -> str:
    if not classes:
        return ""
    shown = [(each.label, each.rows) for each in classes[:_SHOWN_CLASSES]]
    rest = len(classes) - len(shown)
    more = f'<p class="rows">and {plural(rest, "more class", "more classes")}, in report.json</p>' if rest else ""
    return bars("Classes", shown, sum(each.rows for each in classes), more)


def _languages(languages: dict[str, int]) -> str:
    return bars("Languages", list(languages.items())[:8], sum(languages.values())) if languages else ""


def _personal(counts: dict[str, int], rows: int) -> str:
    found = [(_NAMES.get(kind, kind), count) for kind, count in counts.items()]
    return bars("Personal data", found, rows, shares=True) if found else ""


def _lengths(lengths: Lengths | None) -> str:
    """Draw the histogram of the lengths, with a line at the maximum."""
    if lengths is None:
        return ""
    top, width = max(lengths.histogram, default=1) or 1, 440 / len(lengths.histogram)
    step = lengths.edges[1] - lengths.edges[0]
    bars = "".join(
        f'<rect class="{"over" if edge >= lengths.max_length else "bars"}" x="{20 + n * width:.1f}" '
        f'y="{130 - 120 * count / top:.1f}" width="{width - 2:.1f}" height="{120 * count / top:.1f}" rx="1.5">'
        f"<title>{edge} or more: {count:,}</title></rect>"
        for n, (edge, count) in enumerate(zip(lengths.edges, lengths.histogram, strict=False))
    )
    at = 20 + lengths.max_length / step * width
    limit = f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="5" y2="130"/>' if at < 460 else ""
    ticks = "".join(
        f'<text x="{20 + n * width:.1f}" y="146" text-anchor="middle">{lengths.edges[n]:,}</text>'
        for n in range(0, len(lengths.edges), 6)
    )
    picture = (
        f'<svg viewBox="0 0 480 152" role="img">{bars}<line x1="20" x2="460" y1="130" y2="130"/>{limit}{ticks}</svg>'
    )
    values = ", ".join(f"{name} {value:,}" for name, value in lengths.quantiles.items())
    over = f"{lengths.truncated:,} above {lengths.max_length:,}"
    title = f"<h2>Length in {lengths.unit}</h2>"
    return f'<section class="card">{title}{picture}<p class="rows">{values}; {over}</p></section>'


def _conversations(report: InspectionReport) -> str:
    """Show numbers of messages and lengths of responses, messages by role, and the traits of conversations."""
    facts = report.conversations
    if facts is None:
        return ""
    named = (
        ("messages", facts.messages),
        ("responses", facts.turns),
        ("words of the last response", facts.answer_words),
    )
    quantiles = [[_text(what), *(f"{n:,}" for n in values.values())] for what, values in named]
    numbers = table(["", *facts.messages], quantiles, range(1, 1 + len(facts.messages)))
    traits = bars("Traits", list(facts.traits.items()), report.rows, shares=True) if facts.traits else ""
    roles = bars("Messages by role", list(facts.roles.items()), sum(facts.roles.values()))
    return card("Conversations", numbers) + roles + traits


def _foot(report: InspectionReport) -> str:
    skipped = "".join(f"<p>Left out: {_text(line)}</p>" for line in report.skipped)
    return (
        f"<footer>{skipped}<p>All row numbers are in rows.csv, counted from 1 without the header; all values in "
        "report.json. Languages are told by scripts and function words, personal data by patterns: both are estimates."
        "</p></footer>"
    )
