"""Model card of a version: task, labels, base model and metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from raypath.components.core.columns import inputs_of
from raypath.components.homomorphic.model_head import unsupported_reason
from raypath.components.inference.backends.precision_config import read_choice
from raypath.components.registry.tags import METRICS_FILE

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import ServedVersion


class PrecisionMetrics(BaseModel):
    """Speed and metrics in one precision."""

    precision: str
    rows_per_second: float
    metrics: dict[str, float]


class Input(BaseModel):
    """Name and kind of an input column."""

    name: str
    kind: str


class ModelCard(BaseModel):
    """Model card, as returned by /card."""

    name: str
    version: int
    task: str
    labels: list[str]
    label_kind: str
    inputs: list[Input]
    """Input columns that a request carries."""
    base: str
    max_length: int
    """Tokens after which a text is truncated."""
    precision: str
    """Precision of inference on this replica."""
    encrypted: bool
    """True if the version answers requests with encrypted features."""
    thresholds: list[float]
    metrics: dict[str, float]
    """On the test split, from the registration."""
    measured: list[PrecisionMetrics]
    """On the validation split, by precision."""


def card_of(loaded: ServedVersion, encrypted: bool = False) -> ModelCard:
    """Return the card of a loaded version. encrypted: the endpoint serves predictions on encrypted features."""
    metadata, choice = loaded.metadata, read_choice(loaded.folder)
    return ModelCard(
        name=loaded.name,
        version=loaded.version,
        task=metadata.task,
        labels=list(metadata.labels),
        label_kind=metadata.label_kind,
        inputs=[Input(name=column.name, kind=column.kind) for column in inputs_of(metadata.columns)],
        base=metadata.base,
        max_length=metadata.max_length,
        precision=loaded.precision,
        encrypted=encrypted and not unsupported_reason(loaded.folder),
        thresholds=list(metadata.thresholds),
        metrics=_metrics(loaded.folder),
        measured=[PrecisionMetrics(**line.model_dump()) for line in choice.table if not line.left_out]
        if choice
        else [],
    )


def _metrics(folder: Path) -> dict[str, float]:
    try:
        found: dict[str, Any] = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: float(value) for name, value in found.items()}
