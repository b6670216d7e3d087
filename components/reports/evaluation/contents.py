"""Evaluation report as plain values: what `report.json` has, and the page shows. It has row numbers, and no texts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


class Estimate(_Model):
    """A value and its 95% interval; null where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


class ClassResult(_Model):
    """Metrics of one class. The intervals are Wilson's; for F1 see `evaluation/proportions.py`."""

    label: str
    rows: int
    """Rows of the class."""
    predicted: int
    """Rows predicted as the class."""
    precision: Estimate
    recall: Estimate
    f1: Estimate


class Confusion(_Model):
    """Rows of one class that are predicted as another."""

    label: str
    predicted: str
    count: int
    rows: list[int]
    """Some of them, those with the highest probability first; row numbers count from 0, as in predictions.parquet."""


class Slice(_Model):
    """Rows of the test split that share a value of a column, compared with all other rows."""

    column: str
    value: str
    rows: int
    score: Estimate
    """`EvaluationReport.slice_metric` of the rows."""
    others: float
    """The same of the other rows."""
    p: float | None
    """Chance of a difference like this if the slice is not worse, after correction; null if too few rows to compare."""
    worse: bool


class ReliabilityBin(_Model):
    """Rows whose confidence is in one of 15 bins of equal width."""

    rows: int
    confidence: float
    accuracy: float


class Temperature(_Model):
    """Number by which logits are divided for probabilities that fit the validation split best. Not used in service."""

    value: float
    helps: bool
    """True if it lowers the log loss of validation rows that it was not fitted on, by more than chance."""
    valid_rows: int
    ece: float
    """ECE of the test split at this temperature."""
    log_loss: float


class Calibration(_Model):
    """Confidence compared with accuracy."""

    ece: float
    log_loss: float
    bins: list[ReliabilityBin]
    temperature: Temperature | None = None
    """Null without a validation split of at least 30 rows."""


class Threshold(_Model):
    """Metrics of the decisions at a threshold; of the second class, or of all N * K decisions for sets of classes."""

    threshold: float
    precision: float
    recall: float
    f1: float
    chosen: float
    """Share of the rows, or decisions, at or above the threshold."""


class Coverage(_Model):
    """Rows whose confidence is at least `confidence`, and how many of them are correct."""

    confidence: float
    rows: float
    """Share of all rows."""
    accuracy: float


class RowError(_Model):
    """One row that is predicted wrongly. row: from 0, as in predictions.parquet."""

    row: int
    label: str
    predicted: str
    confidence: float | None = None
    """Probability of the prediction; for sets of classes that of the most certain wrong decision."""
    error: float | None = None
    """For numbers: predicted less actual."""


class LabelErrors(_Model):
    """Rows whose label is probably wrong: the model is certain of another class (confident learning)."""

    agreement: float
    """Share of the labels with which the model agrees."""
    count: int
    rows: list[RowError]


class Residuals(_Model):
    """Errors of one numeric target: predicted less actual."""

    target: str
    mae: Estimate
    bias: Estimate
    """Mean error."""
    edges: list[float]
    counts: list[int]
    """Rows between the edges; the outermost bins have the rows beyond them as well."""
    actual: list[float]
    """Least and largest number of both axes of `cells`."""
    cells: list[tuple[int, int, int]]
    """Column (actual), row (predicted) and number of rows of a grid of 40 by 40."""


class EvaluationReport(_Model):
    """The whole report."""

    source: str
    rows: int
    task: str
    base: str
    model: str
    """Digest of the model."""
    test: str
    """Digest of the test split."""
    metrics: dict[str, Estimate]
    """Metrics of the whole split."""
    classes: list[ClassResult] = []
    matrix: list[list[int]] = []
    """Rows by class and predicted class, in the order of `classes`; empty for more than 20 classes."""
    confusions: list[Confusion] = []
    """The most frequent first."""
    slice_metric: str = ""
    """accuracy, row F1 or mean absolute error."""
    slices: list[Slice] = []
    calibration: Calibration | None = None
    coverage: list[Coverage] = []
    thresholds: list[Threshold] = []
    decision: float | None = None
    """Threshold in use, where one applies to all decisions."""
    residuals: list[Residuals] = []
    errors: list[RowError] = []
    """The worst first."""
    label_errors: LabelErrors | None = None
    skipped: list[str] = []
    """Parts that were left out, and why."""

    def row_numbers(self) -> list[int]:
        """Return the numbers of all rows that the report names, sorted."""
        named = [row for each in self.confusions for row in each.rows] + [each.row for each in self.errors]
        named += [each.row for each in self.label_errors.rows] if self.label_errors else []
        return sorted(set(named))
