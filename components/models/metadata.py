"""Model metadata: the file raypath.json in a model folder, with the task, the labels, the decision thresholds and the
differential privacy of the training."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from raypath.components.core.columns import Column, InputForm, Redaction
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind

METADATA_FILE = "raypath.json"


class PrivacyEvent(BaseModel):
    """Steps of DP-SGD with the same noise and sampling."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    noise_multiplier: float
    """Standard deviation of the noise in units of the clipping norm."""
    sampling_rate: float
    """Chance of a row, or group, to be in a step."""
    steps: int


class PrivacyRecord(BaseModel):
    """Differential privacy of a model: what it reveals about a row, or group, of the training split."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    epsilon: float
    """Upper bound over all events, at `delta`."""
    delta: float
    accountant: str
    unit: str
    """What is protected: row, or group."""
    units: int
    """Rows, or groups, of the training split."""
    rows_per_unit: int
    """Rows of a unit that were trained on, at most."""
    clip: float
    """Norm to which the gradient of a unit was clipped."""
    events: tuple[PrivacyEvent, ...]
    """Earlier trainings that the model started from, and the last one."""
    data_epsilon: float
    """Upper bound over all private trainings on the same data that were recorded, those of other models included."""
    data_trainings: int = 1
    """Number of these trainings."""

    def metrics(self) -> dict[str, float]:
        """Return the bound as metrics of the model, which the evaluation report and the registry show."""
        last = self.events[-1]
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "noise_multiplier": last.noise_multiplier,
            "sampling_rate": last.sampling_rate,
            "private_steps": float(sum(event.steps for event in self.events)),
            "data_epsilon": self.data_epsilon,
        }

    def describe(self) -> str:
        """Describe the promise in a line."""
        what = "row" if self.unit == "row" else f"group of up to {self.rows_per_unit} rows"
        return f"epsilon {self.epsilon:.3g} at delta {self.delta:.1e} for each {what} of the training split"


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
    privacy: PrivacyRecord | None = None
    """Differential privacy of the training; None without."""


def write_metadata(folder: Path, metadata: ModelMetadata) -> None:
    """Write raypath.json into a model folder."""
    (folder / METADATA_FILE).write_text(metadata.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_metadata(folder: Path) -> ModelMetadata:
    """Read the metadata of a model folder. Raises DataError if it is not a Raypath model."""
    path = folder / METADATA_FILE
    if not path.is_file():
        raise DataError(f"{folder} has no {METADATA_FILE}", fix="give a model that Raypath fine-tuned")
    return ModelMetadata.model_validate_json(path.read_text(encoding="utf-8"))
