"""Artifacts: the typed inputs and outputs of steps. Each has a URI, a content digest and small typed facts.

A component sets the facts, and the folder relative to its output folder; the store sets `uri` and `digest` when it
commits the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from raypath.components.core.columns import Column, InputForm, Redaction
from raypath.components.core.labels import LabelKind

PAGE = "report.html"
"""File of a report's page."""
COMPARISON_PAGE = "comparison.html"
"""File of the page on the comparison with the champion, which `register` writes."""


Values = dict[str, float | int | str | bool | None]
"""Values of settings by name."""


class Artifact(BaseModel):
    """Base of all artifacts.

    uri: location of the files. A component sets a path relative to `ctx.out` ("" for the folder itself).
    digest: SHA-256 over the files and the facts, 64 hex digits; "" until committed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    uri: str = ""
    digest: str = ""

    @classmethod
    def nested_types(cls) -> dict[str, type[Artifact]]:
        """Types of the fields that are artifacts, such as `splits.train`, and can be passed to a step alone."""
        return {
            name: field.annotation
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, Artifact)
        }

    def nested(self) -> Iterator[tuple[str, Artifact]]:
        """Yield the nested artifacts with their field names."""
        for name in self.nested_types():
            yield name, getattr(self, name)

    def facts(self) -> dict[str, Any]:
        """Return the facts without URI, digest and nested artifacts; the digest covers them and the files."""
        return self.model_dump(mode="json", exclude={"uri", "digest", *self.nested_types()})

    def finalized(self, uri: str, digest: str, **nested: Artifact) -> Self:
        """Return a copy with its final URI and digest."""
        return self.model_copy(update={"uri": uri, "digest": digest, **nested})


class Dataset(Artifact):
    """Rows as Parquet files, in the order of their names.

    The columns are the inputs (`text`, a string, or several as in `columns`), `label` and, if the data has them,
    `split`, `group` and `id`; `preprocess` adds `input_ids` (list of int32) and `target`. The types depend on
    `label_kind`:

    label_kind          label            target                                     labels
    string, int, bool   string           int32, index in `labels`                   classes, after `preprocess`
    set                 list of string   sorted list of int32, may be empty         classes, after `preprocess`
    number              list of float64  list of float32, one a target              names of the targets
    none                no column        no column                                  empty
    """

    rows: int
    labels: tuple[str, ...] = ()
    """Classes in the order of their indices, or names of numeric targets; empty without labels, and for classes before
    `preprocess`."""
    label_kind: LabelKind = Field(default=LabelKind.STRING, strict=False)
    """Kind of the labels in the user's data; predictions have the same type."""
    columns: tuple[Column, ...] = Field(default=(), strict=False)
    """Columns with their kinds and roles; without any, the only input is the column `text`."""
    form: InputForm = "text"
    """Form in which `input_ids` encode the inputs; `text` before `preprocess`."""
    source: str = ""
    """URI of the rows, as the user wrote it."""
    presplit: bool = False
    """True if the data prescribes the split of rows (column `split`)."""
    tokenizer: str = ""
    """Digest of the tokenizer of `input_ids`; empty before `preprocess`."""
    max_length: int = 0
    """Maximum number of tokens per row, special tokens included; 0 before `preprocess`."""
    features: str = ""
    """Digest of the frozen encoder of the column `features` (list of float32); empty without that column."""
    reference: str = ""
    """Digest of the model of the columns `reference_chosen` and `reference_rejected`; empty without them."""
    redaction: Redaction | None = None
    """Settings by which personal data in the inputs was replaced; None for inputs as they were."""


class Splits(Artifact):
    """Train, validation and test splits of a dataset; they have the same schema and no row in common."""

    train: Dataset
    valid: Dataset
    test: Dataset


class Settings(Artifact):
    """Settings chosen by `configure` or found by `tune`: values of fields of another component's Params, by field
    name."""

    values: Values
    metric: str = ""
    score: float = 0.0
    """The metric on the validation split, negated if lower is better."""
    trials: int = 0
    seconds: float = 0.0
    """Estimated time of the training in seconds; 0 if it was not measured."""
    training_fingerprint: str = ""
    """Fingerprint of the training whose weights are in the folder `best`; "" if there are none."""


class Configuration(Artifact):
    """Settings chosen by `configure` for the steps after it. A step depends on its own part only."""

    inputs: Settings
    """base and max_length, for `preprocess`, `inspect` and `pretrain`."""
    finetune: Settings
    """Values of all fields of FinetuneParams that were "auto", for `extract`, `tune` and `finetune`."""


class Model(Artifact):
    """A folder that transformers opens with `from_pretrained`: safetensors, config, tokenizer."""

    task: str
    base: str
    labels: tuple[str, ...] = ()
    label_kind: LabelKind = Field(default=LabelKind.STRING, strict=False)
    max_length: int
    metrics: dict[str, float] = {}
    """Metrics on the validation split."""
    version: str = ""
    """NAME/NUMBER of the registered version that it was fetched as, or that its training started from; 0 for a base in
    place of a version."""
    alias: str = ""
    """Alias by which the version was fetched."""


class Report(Artifact):
    """Evaluation of a model on a test split: metrics.json, predictions.parquet, plots, report.html and report.json."""

    model: Model
    data: Dataset
    metrics: dict[str, float]

    @property
    def page(self) -> Path:
        """Path of the evaluation report, one HTML file."""
        return Path(self.uri) / PAGE


class DataReport(Artifact):
    """Report on the rows of a dataset: report.html, report.json and rows.csv."""

    rows: int
    metrics: dict[str, float]
    """Numbers of findings: errors, warnings and notes."""

    @property
    def page(self) -> Path:
        """Path of the data report, one HTML file."""
        return Path(self.uri) / PAGE


class Release(Artifact):
    """A version in the MLflow registry."""

    name: str
    version: int
    alias: str
    """Alias set on the version: champion or challenger."""
    reason: str
    serving: int
    """Version with the alias champion after this step; 0 without one."""
    chance: float = 0.0
    """Chance of being better than the champion on the test rows; 0 if that is not known, or a slice fell."""
    task: str = ""
    """Task of `version`: the workflow's own, which may be loaded from the registry."""
    metrics: dict[str, float] = {}


class Endpoint(Artifact):
    """Endpoint that serves a model."""

    url: str
    name: str
    version: int
    scales_to_zero: bool = False
    """True if it has no replica while there are no requests."""
    example: str = ""
    """Made-up request as JSON, for a model with several input columns and for a language model."""
    path: str = "/predict"
    """Path of its main route below the URL."""
    metrics: dict[str, float] = {}
