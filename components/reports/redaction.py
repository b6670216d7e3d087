"""Report on a redaction: counts by kind, without any value, as a page and as JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from raypath.components.core.columns import Redaction
from raypath.components.data.wording import percent, plural
from raypath.components.privacy.kinds import WORDS, Kind
from raypath.components.reports.page.files import write_files
from raypath.components.reports.page.html import bars, card, heading, page, table, text

_REPLACEMENTS = {
    "type": "their kind, as in <EMAIL>",
    "mask": "asterisks",
    "hash": "a keyed hash",
    "surrogate": "made-up data of the same kind",
}


class RedactionReport(BaseModel):
    """Counts of a redaction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    rows: int
    redacted_rows: int
    """Rows with at least one item."""
    counts: dict[str, int]
    """Items by kind."""
    settings: Redaction
    sealed_by: str = ""
    """Id of the key that encrypted the originals; "" where they are not kept."""


def write_report(folder: Path, report: RedactionReport) -> None:
    """Write report.html and report.json."""
    write_files(folder, render(report), report)


def render(report: RedactionReport) -> str:
    """Return the page as HTML."""
    items = sum(report.counts.values())
    ordered = sorted(report.counts.items(), key=lambda each: (-each[1], each[0]))
    shown = [(WORDS[Kind(kind)], number) for kind, number in ordered]
    counts = bars("Replaced items", shown, items) if shown else card("Replaced items", "<p>None was found.</p>")
    settings = report.settings
    facts = [
        ["kinds", text(", ".join(settings.kinds))],
        ["replaced by", text(_REPLACEMENTS[settings.replacement])],
        ["models of names", text(", ".join(settings.names) or "none: names are not found")],
        ["version of the recognisers", str(settings.version)],
        ["key", text(settings.key or "none")],
    ]
    changed = f"{report.redacted_rows:,} redacted ({percent(report.redacted_rows, report.rows)})"
    body = [
        heading(report.source, f"Redaction, {plural(report.rows, 'row')}", [changed, plural(items, "item")]),
        counts,
        card("Settings", table(["setting", "value"], facts)),
        '<p class="foot">This page and report.json have no value of the data. Patterns and models miss some items: '
        "docs/privacy.md has their measured recall.</p>",
    ]
    return page("Redaction report", report.source, body)
