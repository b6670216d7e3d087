"""Report on generated text as plain values: what `report.json` has, and the page shows. It has no texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from raypath.components.reports.evaluation.contents import Estimate


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


class Measured(_Model):
    """A metric of the model and, where it was run, of its base on the same rows."""

    about: str
    value: Estimate
    lower: bool
    """Lower is better."""
    neutral: bool
    """Neither higher nor lower is better."""
    top: float | None
    """Highest value; null without one."""
    before: float | None = None
    """Of the base."""
    change: Estimate | None = None
    """Value less that of the base, with the paired 95% interval."""
    chance: float | None = None
    """Chance of being better than the base on such rows, from 0 to 1."""


class Sample(_Model):
    """One row. row: from 0, as in predictions.parquet."""

    row: int
    why: str
    """Reason for showing it, such as "largest gain"."""
    score: float
    """Main metric of this row alone."""
    before: float | None = None


class Lengths(_Model):
    """Numbers of answers by their number of words. The last bin has the longer ones as well."""

    edges: list[int]
    reference: list[int]
    answer: list[int]
    before: list[int] = []


class Leak(_Model):
    """An answer with a passage of a training answer."""

    row: int
    words: int
    """Length of the longest passage."""


class JudgeSummary(_Model):
    """Preference of a judge between the model's and its base's answers."""

    url: str
    model: str
    rows: int
    """Rows that were judged in both orders."""
    agreement: float | None
    """Share of them with the same verdict in both orders."""
    tokens: int
    requests: int
    failure: str = ""


class TaskResult(_Model):
    """A metric of a task of lm-evaluation-harness."""

    task: str
    metric: str
    value: float
    error: float | None
    """Standard error."""
    before: float | None = None
    """Of the base."""


class GenerationReport(_Model):
    """The whole report."""

    source: str
    base: str
    model: str
    """Digest of the model."""
    test: str
    """Digest of the test split."""
    rows: int
    """Rows that were answered."""
    split_rows: int
    """Rows of the test split."""
    max_new_tokens: int
    main: str
    """Metric by which samples are chosen: the first of `metrics` that needs answers."""
    metrics: dict[str, Measured]
    samples: list[Sample]
    lengths: Lengths
    choices: list[str] = []
    """The answers, where they are one of few."""
    leaks: list[Leak] = []
    """The longest first."""
    train_rows: int = 0
    """Training answers in which passages were looked for; 0 if they were not."""
    judge: JudgeSummary | None = None
    harness: list[TaskResult] = []
    tokens_per_second: float = 0.0
    """Speed of generation."""
    notes: list[str] = []

    def row_numbers(self) -> list[int]:
        """Return the numbers of all rows that the report names, sorted."""
        return sorted({each.row for each in self.samples} | {each.row for each in self.leaks})


@dataclass(frozen=True)
class SampleText:
    """Texts of one row, for the page. turns: role and text of each message of the prompt."""

    turns: Sequence[tuple[str, str]]
    reference: str
    answer: str
    before: str | None = None
