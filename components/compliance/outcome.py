"""Outcome of a check, with the evidence in one sentence and the command that would change it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Outcome for an item of a regime."""

    MET = "met"
    PARTLY = "partly"
    NOT_MET = "not met"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not applicable"

    @property
    def is_open(self) -> bool:
        """True where something is left to do."""
        return self in (Outcome.PARTLY, Outcome.NOT_MET, Outcome.UNKNOWN)


@dataclass(frozen=True)
class Answer:
    """Outcome of a check. remedy: a command, or a sentence; "" where nothing is to do."""

    outcome: Outcome
    evidence: str
    remedy: str = ""


def met(evidence: str) -> Answer:
    """Return that the evidence shows what is required."""
    return Answer(Outcome.MET, evidence)


def partly(evidence: str, remedy: str) -> Answer:
    """Return that the evidence shows a part of it."""
    return Answer(Outcome.PARTLY, evidence, remedy)


def not_met(evidence: str, remedy: str) -> Answer:
    """Return that the evidence shows the contrary."""
    return Answer(Outcome.NOT_MET, evidence, remedy)


def unknown(evidence: str, remedy: str = "") -> Answer:
    """Return that there is no evidence; a signed statement may answer instead."""
    return Answer(Outcome.UNKNOWN, evidence, remedy)


def not_applicable(evidence: str) -> Answer:
    """Return that the requirement does not concern this project."""
    return Answer(Outcome.NOT_APPLICABLE, evidence)
