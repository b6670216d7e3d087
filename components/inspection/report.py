"""Data report as plain values: what `report.json` has, and the page shows."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

Value = str | int | float | bool | None


class Severity(StrEnum):
    """Weight of a finding: `error` makes metrics wrong or a run fail, `warning` costs quality, `note` neither."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Place(_Model):
    """One row. source: name of the file or the split; row: number from 1, a header not counted."""

    source: str
    row: int


class Finding(_Model):
    """A fault of the data, in one sentence, with the settings that mend it."""

    kind: str
    """Such as duplicates, leaks or label_errors."""
    severity: Severity
    text: str
    count: int
    """Number of rows, or of what the sentence counts."""
    rows: list[Place] = []
    """The first rows, at most ten."""
    settings: dict[str, Value] = {}
    """Settings that mend it, by dotted key; empty if the data itself has to be changed."""
    examples: list[str] = []
    """Parts of texts; empty unless `inspect.texts` allows them."""


class Column(_Model):
    """A column of the files."""

    name: str
    kind: str
    """text, category, set, number, boolean, time, id, messages or empty."""
    role: str = ""
    """text, label, group, split, a part of conversations, such as messages or prompt, or "" for a column that is not
    used."""
    why: str
    missing: int
    distinct: int
    """Distinct values, counted to 10,000."""


class ClassCount(_Model):
    """Rows of a class, by split where the data or the run has splits."""

    label: str
    rows: int
    splits: dict[str, int] = {}


class Lengths(_Model):
    """Lengths of the texts. quantiles: by name; histogram: numbers of texts between `edges`."""

    unit: str
    """tokens or words."""
    quantiles: dict[str, int]
    edges: list[int]
    histogram: list[int]
    max_length: int
    truncated: int


class ConversationFacts(_Model):
    """Make-up of conversations. messages, turns, answer_words: quantiles by name, the last of the last responses.

    turns: messages of the assistant. roles: messages of all rows by role. traits: rows by trait, such as "system
    message".
    """

    messages: dict[str, int]
    turns: dict[str, int]
    roles: dict[str, int]
    answer_words: dict[str, int]
    traits: dict[str, int]


class InspectionReport(_Model):
    """The whole report."""

    source: str
    rows: int
    splits: dict[str, int]
    label_kind: str
    columns: list[Column]
    classes: list[ClassCount]
    """The most frequent first, at most 1,000."""
    lengths: Lengths | None
    conversations: ConversationFacts | None = None
    """None for rows that are no conversations."""
    languages: dict[str, int]
    """Texts by ISO 639-1 code, `script:NAME` or `unknown`."""
    personal_data: dict[str, int]
    """Rows by kind of personal data."""
    findings: list[Finding]
    skipped: list[str]
    """Parts that were left out, and why."""

    def settings(self) -> dict[str, Value]:
        """Settings of all findings by dotted key; the first of two that differ, which is the more severe."""
        merged: dict[str, Value] = {}
        for finding in self.findings:
            for key, value in finding.settings.items():
                merged.setdefault(key, value)
        return merged

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity."""
        return sum(finding.severity is severity for finding in self.findings)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings, errors first."""
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))
