"""Page of an assessment, and its values as JSON."""

from __future__ import annotations

from pathlib import Path

from raypath.components.core.files import write_atomically
from raypath.components.data.wording import plural
from raypath.components.reports.page.html import card, heading, page, table, text
from raypath.components.risk.assessment import Assessment, Level, Risk
from raypath.components.risk.costs import Business

PAGE, JSON = "risk.html", "risk.json"


def write_assessment(folder: Path, found: Assessment) -> None:
    """Write risk.html and risk.json, readable by the owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, render(found))
    write_atomically(folder / JSON, found.model_dump_json(indent=2) + "\n")


def render(found: Assessment) -> str:
    """Return the page as HTML: a matrix, the risks with the worst first, the figures."""
    lead = f"{text(found.home)} · {found.at:%Y-%m-%d %H:%M} UTC"
    title = "Risks of the project"
    body = [
        heading(title, lead, [plural(len(found.risks), "risk"), f"{len(found.at_least(6))} of score 6 or above"]),
        f'<p class="said advice">{text(found.advice)}</p>',
        card("Likelihood and impact", _matrix(found.risks)),
        card("Risks", table(["score", "risk, evidence and what lowers it"], map(_row, found.risks))),
        card(
            "Business",
            table(["figure", "value"], [[text(name), text(value)] for name, value in figures(found.business)]),
        ),
    ]
    return page("Risk assessment", title, body)


def tone(score: int) -> str:
    """Return the tone of a score: good, warn or bad."""
    return "bad" if score >= 6 else "warn" if score >= 3 else "soft"


def figures(found: Business) -> list[tuple[str, str]]:
    """Return the figures of the business as text; those that are not known say so."""

    def money(value: float | None) -> str:
        return "not known" if value is None else f"{value:,.2f}"

    def count(value: float | None) -> str:
        return "not known" if value is None else f"{value:,.0f}"

    def share(value: float | None) -> str:
        return "not known" if value is None else f"{value:.0%}"

    return [
        ("days of usage", f"{found.days:.1f}"),
        ("requests a month", count(found.requests_month)),
        ("revenue a month", money(found.revenue_month)),
        ("cost a month", money(found.cost_month)),
        ("revenue of 1,000 requests", money(found.price_1000)),
        ("cost of 1,000 requests", money(found.cost_1000)),
        ("of it computing", money(found.compute_1000)),
        ("margin", share(found.margin)),
        ("break-even, requests a month", count(found.break_even)),
        ("capacity, requests a month", count(found.capacity)),
        ("utilisation of the machines", share(found.utilisation)),
    ]


def _matrix(risks: tuple[Risk, ...]) -> str:
    rows = []
    for likelihood in reversed(Level):
        cells = [f"likelihood {likelihood.word}"]
        for impact in Level:
            here = [each for each in risks if (each.likelihood, each.impact) == (likelihood, impact)]
            shown = "<br>".join(text(each.id) for each in here) or "·"
            cells.append(f'<span class="{tone(likelihood * impact)}">{shown}</span>')
        rows.append(cells)
    return table(["", *(f"impact {impact.word}" for impact in Level)], rows)


def _row(each: Risk) -> list[str]:
    levels = f"likelihood {each.likelihood.word}, impact {each.impact.word}"
    said = f'<b>{text(each.what)}</b><br><span class="soft">{text(each.evidence)} · {levels}</span>'
    score = f'<span class="{tone(each.score)}">{each.score}</span><br><small>{text(each.area)}</small>'
    return [score, f"{said}<br><code>{text(each.remedy)}</code>"]
