"""Page of a review, and its values as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from raypath.components.compliance.outcome import Outcome
from raypath.components.compliance.review import ChangedItem, Review, ReviewedItem
from raypath.components.core.files import write_atomically
from raypath.components.data.wording import plural
from raypath.components.reports.page.html import bars, card, folded, heading, page, table, text

PAGE, JSON = "review.html", "review.json"
_TONES = {
    Outcome.MET: "good",
    Outcome.PARTLY: "warn",
    Outcome.NOT_MET: "bad",
    Outcome.UNKNOWN: "warn",
    Outcome.NOT_APPLICABLE: "soft",
}
_ORDER = (Outcome.NOT_MET, Outcome.UNKNOWN, Outcome.PARTLY, Outcome.MET, Outcome.NOT_APPLICABLE)
_WEIGHT_TONES = {"high": "bad", "medium": "warn", "low": "soft"}
_WEIGHTS = {"high": 0, "medium": 1, "low": 2}


def write_review(folder: Path, review: Review, changed: Iterable[ChangedItem] = ()) -> None:
    """Write review.html and review.json, readable by the owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, render(review, changed))
    write_atomically(folder / JSON, review.model_dump_json(indent=2) + "\n")


def render(review: Review, changed: Iterable[ChangedItem] = ()) -> str:
    """Return the page as HTML: what is open first, then the rest."""
    counts = review.counts()
    facts = [f"{count} {outcome}" for outcome, count in counts.items() if count]
    lead = f"{text(review.text)}, checklist as of {review.as_of} · {text(review.home)} · {review.at:%Y-%m-%d %H:%M} UTC"
    applicable = [(outcome.value, counts[outcome]) for outcome in _ORDER[:-1] if counts[outcome]]
    items = sorted(review.items, key=lambda item: (_ORDER.index(item.outcome), _WEIGHTS[item.severity]))
    body = [
        heading(review.title, lead, facts),
        f'<p class="said advice">{text(review.advice)}</p>',
        bars("Items that apply", applicable, sum(count for _, count in applicable), shares=True) if applicable else "",
        _changes(list(changed)),
        *(_section(outcome, list(group)) for outcome, group in groupby(items, key=lambda item: item.outcome)),
        _profile(review),
        f"<footer><p>{text(review.note)}</p><p>{text(review.advice)}</p></footer>",
    ]
    return page("Compliance review", review.title, body)


def _section(outcome: Outcome, items: list[ReviewedItem]) -> str:
    title = f"{outcome.value.capitalize()}: {plural(len(items), 'item')}"
    shown = table(["article", "requirement, evidence and remedy"], map(_row, items))
    if outcome in (Outcome.MET, Outcome.NOT_APPLICABLE):
        return card("", folded(title, shown))
    return card(f'<span class="{_TONES[outcome]}">{title}</span>', shown)


def _row(item: ReviewedItem) -> list[str]:
    later = f' <small class="soft">applies from {item.applies_from}</small>' if item.applies_from else ""
    remedy = f"<br><code>{text(item.remedy)}</code>" if item.remedy else ""
    said = f'<b>{text(item.requirement)}</b>{later}<br><span class="soft">{text(item.evidence)}</span>{remedy}'
    return [f'{text(item.article)}<br><span class="{_WEIGHT_TONES[item.severity]}">{text(item.severity)}</span>', said]


def _changes(changed: list[ChangedItem]) -> str:
    if not changed:
        return ""
    rows = [
        [text(each.article), text(each.id), text(each.before or "not there"), text(each.after or "not there")]
        for each in changed
    ]
    return card("Changes", table(["article", "item", "before", "now"], rows))


def _profile(review: Review) -> str:
    words = {True: "yes", False: "no", None: "not answered"}
    rows = [
        [text(name.replace("_", " ")), text(words[value] if value is None or isinstance(value, bool) else str(value))]
        for name, value in review.profile.items()
    ]
    return card("", folded("Answers of the project", table(["question", "answer"], rows)))
