"""Review of a project by a regime: an outcome for each item, with its evidence and remedy."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from raypath.components.compliance.checks.catalog import CHECKS
from raypath.components.compliance.evidence import Evidence, StatementEvidence
from raypath.components.compliance.outcome import Answer, Outcome, met, not_applicable, not_met
from raypath.components.compliance.profile import Profile
from raypath.components.compliance.regime import Item, Regime, Severity, topics

NO_ADVICE = (
    "No legal advice: a checklist over technical evidence and statements, for a part of the law. "
    "A project with every item met may still break it."
)
FailOn = Literal["high", "medium", "any"]
_FAILS: dict[FailOn, frozenset[Severity]] = {
    "high": frozenset({Severity.HIGH}),
    "medium": frozenset({Severity.HIGH, Severity.MEDIUM}),
    "any": frozenset(Severity),
}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ReviewedItem(_Model):
    """Item of a regime with its outcome."""

    id: str
    article: str
    requirement: str
    severity: Severity
    check: str
    """Name of the check; `stated` for items that only a statement answers."""
    outcome: Outcome
    evidence: str
    """In one sentence."""
    remedy: str
    """Command or sentence; "" where nothing is to do."""
    statement: str
    """Topic of the statement that may answer it; "" for none."""
    applies_from: date | None
    """First day on which it has to be met, where that day is after the review; null otherwise."""


class Review(_Model):
    """Review of a project by a regime."""

    regime: str
    title: str
    text: str
    """The law's name and number."""
    as_of: date
    """Day of the text that the checklist follows."""
    note: str
    """Limits of the checklist."""
    advice: str = NO_ADVICE
    home: str
    at: datetime
    profile: dict[str, bool | int | None]
    """Answers of the project."""
    items: list[ReviewedItem]

    def counts(self) -> dict[Outcome, int]:
        """Return the number of items by outcome."""
        return {outcome: sum(item.outcome is outcome for item in self.items) for outcome in Outcome}

    def failed(self, fail_on: FailOn | None) -> list[ReviewedItem]:
        """Return the open items of these severities; those that apply later do not count."""
        severities = _FAILS[fail_on] if fail_on else frozenset[Severity]()
        return [
            item
            for item in self.items
            if item.outcome.is_open and item.severity in severities and item.applies_from is None
        ]


class ChangedItem(_Model):
    """Item whose outcome differs from that of an earlier review. before, after: null where it was not there."""

    id: str
    article: str
    before: Outcome | None
    after: Outcome | None


def review(regime: Regime, evidence: Evidence, profile: Profile) -> Review:
    """Return the review of a project by a regime."""
    return Review(
        regime=regime.id,
        title=regime.title,
        text=regime.text,
        as_of=regime.as_of,
        note=regime.note,
        home=evidence.home,
        at=evidence.at,
        profile=profile.model_dump(),
        items=[_reviewed(item, evidence, profile) for item in regime.items],
    )


def compare(before: Review, after: Review) -> list[ChangedItem]:
    """Return the items whose outcomes differ."""
    old, new = ({item.id: item for item in each.items} for each in (before, after))
    changed = []
    for name in [*new, *(name for name in old if name not in new)]:
        was, now = old.get(name), new.get(name)
        outcomes = was and was.outcome, now and now.outcome
        if outcomes[0] != outcomes[1]:
            article = (now or old[name]).article
            changed.append(ChangedItem(id=name, article=article, before=outcomes[0], after=outcomes[1]))
    return changed


def answer(item: Item, evidence: Evidence, profile: Profile) -> Answer:
    """Return the answer for an item: by the profile, else by its check, else by a statement."""
    for question in item.when:
        if (reason := _does_not_apply(question, evidence, profile)) is not None:
            return not_applicable(reason)
    found = CHECKS[item.check](evidence, profile)
    if item.statement is None or found.outcome is not Outcome.UNKNOWN:
        return found
    remedy = f'raypath comply state {item.statement} --text "..." --by NAME --valid 365d'
    remedy = f"{found.remedy}; or {remedy}" if found.remedy else remedy
    given = evidence.statements.get(item.statement)
    if given is None:
        lead = "" if item.check == "stated" else f"{found.evidence}, and "
        question = topics()[item.statement].question
        wanted = f"{question[0].lower()}{question[1:]}".rstrip(".")
        return Answer(Outcome.UNKNOWN, f"{lead}nobody has stated {item.statement}: {wanted}", remedy)
    return _by_statement(item.statement, given, remedy)


def _by_statement(topic: str, given: StatementEvidence, remedy: str) -> Answer:
    if given.state == "rejected":
        return not_met(f"the statement {topic} is rejected: {given.reason}", remedy)
    if given.state == "expired":
        return not_met(f"the statement {topic} of {given.by} has expired on {given.until:%Y-%m-%d}", remedy)
    about = f" ({given.document})" if given.document else ""
    short = given.text if len(given.text) <= 160 else f"{given.text[:159]}…"
    return met(f"stated by {given.by} on {given.signed:%Y-%m-%d}, until {given.until:%Y-%m-%d}{about}: {short}")


def _does_not_apply(question: str, evidence: Evidence, profile: Profile) -> str | None:
    """Return why a question is answered with no; None where it is yes or not answered."""
    said = getattr(profile, question)
    if question == "personal_data" and said is False and any(run.found_persons for run in evidence.runs):
        return None
    if question == "generation" and said is not True:
        if evidence.generates:
            return None
        if said is None and evidence.runs:
            return "no run is of a language model"
    return f"compliance.yaml says {question}: false" if said is False else None


def _reviewed(item: Item, evidence: Evidence, profile: Profile) -> ReviewedItem:
    found = answer(item, evidence, profile)
    later = item.applies_from is not None and item.applies_from > evidence.at.date()
    return ReviewedItem(
        id=item.id,
        article=item.article,
        requirement=item.requirement,
        severity=item.severity,
        check=item.check,
        outcome=found.outcome,
        evidence=found.evidence,
        remedy=found.remedy if found.outcome.is_open else "",
        statement=item.statement or "",
        applies_from=item.applies_from if later else None,
    )
