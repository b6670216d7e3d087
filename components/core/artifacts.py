"""Artifacts: what steps hand over. A uri, a content digest and small typed facts; never an id in a text file.

A component fills in the facts and the folder below its own output folder; the store fills in `uri` and `digest`
when it commits the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from raypath.components.core.labels import LabelKind


class Artifact(BaseModel):
    """Base of all artifacts.

    uri: where the files are. A component gives a path relative to `ctx.out` ("" means the folder itself).
    digest: SHA-256 over the files and the facts, 64 hex digits; "" until committed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    uri: str = ""
    digest: str = ""

    @classmethod
    def nested_types(cls) -> dict[str, type[Artifact]]:
        """Fields that are artifacts themselves, and can be handed on alone (`splits.train`)."""
        return {
            name: field.annotation
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, Artifact)
        }

    def nested(self) -> Iterator[tuple[str, Artifact]]:
        """The nested artifacts by field name."""
        for name in self.nested_types():
            yield name, getattr(self, name)

    def facts(self) -> dict[str, Any]:
        """The typed facts without address, digest and nested artifacts: what the digest covers beside the files."""
        return self.model_dump(mode="json", exclude={"uri", "digest", *self.nested_types()})

    def finalized(self, uri: str, digest: str, **nested: Artifact) -> Self:
        """A copy with its final address and digest."""
        return self.model_copy(update={"uri": uri, "digest": digest, **nested})


class Dataset(Artifact):
    """Rows as Parquet files, in the order of their names.

    Before `preprocess` the columns are `text` (string), `label` and, where the data says so, `part` and `group`; after
    it also `input_ids` (list of int32) and `target`. What labels are is told by `label_kind`:

    label_kind          label            target                                     labels
    string, int, bool   string           int32, index in `labels`                   classes, after `preprocess`
    set                 list of string   sorted list of int32, may be empty         classes, after `preprocess`
    number              list of float64  list of float32, one a target              names of the targets
    none                no column        no column                                  empty
    """

    rows: int
    labels: tuple[str, ...] = ()
    """The classes in the order of their numbers, or the names of the numbers; empty when there are none or before they
    are known."""
    label_kind: LabelKind = Field(default=LabelKind.STRING, strict=False)
    """Kind of the labels in the user's data; predictions have the same type."""
    source: str = ""
    """Where the rows came from, as the user wrote it."""
    presplit: bool = False
    """True when the data says which row is train, valid or test."""
    tokenizer: str = ""
    """Digest of the tokenizer that made `input_ids`; empty before `preprocess`."""
    max_length: int = 0
    """Longest row in tokens, special ones included; 0 before `preprocess`."""
    features: str = ""
    """Digest of the frozen encoder whose states are in the column `features` (list of float32); empty without."""


class Splits(Artifact):
    """The three parts of a dataset; they share one schema and no row."""

    train: Dataset
    valid: Dataset
    test: Dataset


class Settings(Artifact):
    """What `tune` found best: values for fields of another component's Params, by field name."""

    values: dict[str, float | int | str | bool | None]
    metric: str
    score: float
    """The metric on the validation part, turned so that higher is better."""
    trials: int
    training_fingerprint: str = ""
    """Names the training whose weights lie in the folder `best`; "" when there are none."""


class Model(Artifact):
    """A folder that transformers opens with `from_pretrained`: safetensors, config, tokenizer."""

    task: str
    base: str
    labels: tuple[str, ...] = ()
    label_kind: LabelKind = Field(default=LabelKind.STRING, strict=False)
    max_length: int
    metrics: dict[str, float] = {}
    """On the validation part."""


class Report(Artifact):
    """metrics.json, predictions.parquet and plots of a model on a test part."""

    model: Model
    data: Dataset
    metrics: dict[str, float]


class Release(Artifact):
    """A version in the MLflow registry."""

    name: str
    version: int
    alias: str
    """The alias that was given to it: champion or challenger."""
    reason: str
    serving: int
    """The version that holds the alias champion after this step."""
    metrics: dict[str, float] = {}


class Endpoint(Artifact):
    """A model in service."""

    url: str
    name: str
    version: int
    scales_to_zero: bool = False
    """Whether it has no replica while nobody asks."""
    metrics: dict[str, float] = {}
