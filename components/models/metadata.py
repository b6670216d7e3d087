"""Model metadata: the file raypath.json in a model folder, with the task, the labels and the decision thresholds."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from raypath.components.core.columns import Column, InputForm, Redaction
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind

METADATA_FILE = "raypath.json"


class ModelMetadata(BaseModel):
    """Metadata that Raypath adds to a transformers folder, in the file raypath.json."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    task: str
    labels: tuple[str, ...]
    label_kind: LabelKind = LabelKind.STRING
    max_length: int
    columns: tuple[Column, ...] = ()
    """Input columns; without any, the only input is the text column `text`."""
    form: InputForm = "text"
    """Form in which the encoder reads the inputs."""
    separator: int | None = None
    """Id of the token between the two texts of a pair, if the second has a token type of its own."""
    base: str = ""
    base_digest: str = ""
    """Digest of the base model that adapters in the folder belong to, or that it has a copy of; else ""."""
    objective: dict[str, str | float] = {}
    """Objective of preferences that the model was trained by, and its settings (tasks/objectives/params.py)."""
    thresholds: tuple[float, ...] = ()
    """Decision thresholds: one for the second of two classes, or one per class; () predicts the likeliest class, or
    uses 0.5."""
    means: tuple[float, ...] = ()
    """Mean of each numeric target in training; the head predicts standard deviations from it."""
    scales: tuple[float, ...] = ()
    """Standard deviation of each numeric target in training."""
    redaction: Redaction | None = None
    """Settings by which personal data in the training data was replaced, as it is in requests."""


def write_metadata(folder: Path, metadata: ModelMetadata) -> None:
    """Write raypath.json into a model folder."""
    (folder / METADATA_FILE).write_text(metadata.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_metadata(folder: Path) -> ModelMetadata:
    """Read the metadata of a model folder. Raises DataError if it is not a Raypath model."""
    path = folder / METADATA_FILE
    if not path.is_file():
        raise DataError(f"{folder} has no {METADATA_FILE}", fix="give a model that Raypath fine-tuned")
    return ModelMetadata.model_validate_json(path.read_text(encoding="utf-8"))
