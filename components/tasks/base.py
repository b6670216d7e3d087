"""Task interface: everything that depends on the kind of model.

A task defines its label kinds, head, loss, decoding, metrics, predictions and plots. Steps, the training loop and the
endpoint use only this interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel

from raypath.components.core.arrays import Array, Batch
from raypath.components.core.columns import inputs_of, is_single_text
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import SINGLE_CLASS, LabelKind
from raypath.components.models.base_models import build_model
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.tasks.schemas import Request, request_type

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from raypath.components.data.rendering import Renderer
    from raypath.components.evaluation.outcomes import Outcomes
    from raypath.components.privacy.redactor import Redactor


Plain = Literal["label", "labels", "values", "outputs"]


class Task:
    """Base class of tasks. Subclass it, set `name`, and override what differs.

    Shapes: B rows, L tokens, K = `outputs` numbers a row. A batch is a dict of tensors: `input_ids` and
    `attention_mask` int64 [B, L], `targets` [B] or [B, K], and `row_weights` float32 [B] if the rows have weights.
    """

    name: ClassVar[str] = ""
    auto: ClassVar[str] = "AutoModelForSequenceClassification"
    """transformers Auto class of a model with this task's head."""
    generates_text: ClassVar[bool] = False
    """True for language models: evaluated by generating, registered with MLflow's signature of a chat model."""
    served: ClassVar[bool] = True
    """False for a task whose models have no endpoint."""
    problem: ClassVar[str | None] = None
    """transformers' `problem_type` of the head, for use of the folder without Raypath."""
    kinds: ClassVar[frozenset[LabelKind]] = SINGLE_CLASS
    """Label kinds that the task accepts; see `Dataset.label_kind`."""
    input_kinds: ClassVar[frozenset[str] | None] = None
    """Kinds of input columns that the task accepts; None for every kind, each in its form as text."""
    metric: ClassVar[str] = ""
    """Default metric for selecting weights and versions."""
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    """Metrics where lower is better."""
    objectives: ClassVar[frozenset[str]] = frozenset()
    """Fields of ObjectiveParams that the task supports."""
    request: ClassVar[type[BaseModel]] = Request
    """Request schema of the endpoint; read by `texts`."""
    response: ClassVar[type[BaseModel]]
    """Response schema: model, version and predictions, one per text."""
    example_request: ClassVar[dict[str, Any]] = {"text": ["A lovely cup of tea"]}
    """Made-up request for smoke tests of an endpoint; never user data."""
    packed: ClassVar[bool] = False
    """True for batches without padding (models/decoder/packed_batch.py), of which a budget counts the tokens alone."""
    pads: ClassVar[bool] = False
    """True if the module of a packed task pads its rows: a budget then counts the padding too."""
    adapters_alone: ClassVar[bool] = False
    """True if a training with LoRA saves its adapters without the base model (models/adapters.py)."""
    plain: ClassVar[Plain] = "outputs"
    """Output of a registered version without Raypath installed (registry/flavors/pyfunc_model.py): a class and its
    probability, a set of classes, numbers by target, or the raw outputs of the head."""

    def __init__(self, metadata: ModelMetadata, objective: ObjectiveParams | None = None) -> None:
        self.metadata = metadata
        self.objective = objective or ObjectiveParams()
        self._check()

    @property
    def padded(self) -> bool:
        """True if a budget of tokens counts padding."""
        return self.pads or not self.packed

    @property
    def outputs(self) -> int:
        """Numbers per row that `record` returns."""
        return len(self.metadata.labels)

    @property
    def trained_metadata(self) -> ModelMetadata:
        """Metadata of the trained model; those of another task where training alone differs."""
        return self.metadata

    # -- training

    @classmethod
    def check_no_base(cls) -> None:
        """Raise ParamsError if the task has no default base."""

    @classmethod
    def check_base(cls, base: str, folder: Path) -> None:
        """Raise DataError for a model folder on which the task cannot train. base: as the user wrote it."""

    def fit(self, targets: Array) -> Self:
        """Return the task fitted to the training targets [N] or [N, K], such as with class weights or scales."""
        return self

    def check_targets(self, targets: Array, split: str) -> None:
        """Raise DataError for targets of a split, train or valid, that the task does not accept."""

    def build(self, folder: str, dropout: float | None) -> Any:
        """Build a transformers model with this task's head on the base model in `folder`. Raises DataError."""
        model = build_model(self.auto, folder, self.metadata.labels, dropout)
        if self.problem:
            model.config.problem_type = self.problem
        return model

    def module(self, model: Any, device: Any = None) -> Any:
        """Return the module that `forward` is to be called with: the model, or one around it. device: that it will be
        on; None for the one it is on."""
        return model

    def inputs(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Prepare a batch for the model, on the CPU; a language model masks tokens here, with `rng`."""
        return batch

    def forward(self, model: Any, batch: Batch) -> Any:
        """Run the model: outputs float [B, K] or [B, L, K]."""
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def weight(self, batch: Batch) -> float:
        """Number of loss terms of a batch: its rows or the sum of their weights, unless a task counts tokens."""
        return float(batch["row_weights"].sum() if "row_weights" in batch else len(batch["targets"]))

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Loss summed over the batch's terms, a scalar tensor; the step divides by the terms of all ranks."""
        raise NotImplementedError

    # -- evaluation

    def record(self, outputs: Any, batch: Batch) -> Any:
        """Reduce outputs to what evaluation keeps of a batch, [B, outputs]."""
        return outputs

    def decode(self, recorded: Array) -> Array:
        """Convert recorded float32 [B, outputs] to the input of `metrics` and `predictions`, such as probabilities."""
        return recorded

    def metrics(self, targets: Array, decoded: Array) -> dict[str, float]:
        """Compute metrics by name; names may include a class, as `f1/<label>`."""
        raise NotImplementedError

    @property
    def needs_calibration(self) -> bool:
        """True if `calibrate` is to be called on the validation split after training."""
        return self.objective.threshold == "valid"

    def calibrate(self, targets: Array, decoded: Array) -> ModelMetadata:
        """Return the metadata with values chosen on the validation split, such as thresholds."""
        return self.metadata

    def intervals(self, targets: Array, decoded: Array, resamples: int, seed: int) -> dict[str, float]:
        """Compute 95% bootstrap intervals of the main metrics, `<metric>_low` and `<metric>_high`; {} for 0
        resamples."""
        return {}

    def outcomes(self, metric: str, targets: Array, decoded: Array, labels: tuple[str, ...] = ()) -> Outcomes:
        """Return outcomes by row for a metric of `metrics`, to compare two models (`evaluation/paired.py`).

        Any metric works here, by computing it again for each resample; the tasks have faster ways for their own.

        labels: Order of labels that the outcomes refer to, where another model's is not this one's; () for its own.
        """
        from raypath.components.evaluation.outcomes import repeated_outcomes

        return repeated_outcomes(lambda *rows: self.metrics(*rows)[metric], targets, decoded)

    def _order(self, labels: tuple[str, ...]) -> list[int]:
        """Return where each of `labels`, or of the model's own without any, is among the model's."""
        return [self.metadata.labels.index(label) for label in labels or self.metadata.labels]

    def warnings(self, targets: Array, decoded: Array) -> list[str]:
        """Describe, a line each, what an evaluation shows that its averages hide, such as classes never predicted."""
        return []

    # -- predictions

    @property
    def request_type(self) -> type[BaseModel]:
        """Request schema for the model's input columns."""
        return request_type(self.request, self.metadata.columns)

    def texts(self, request: Any) -> list[str]:
        """Return the inputs of a request as texts, one prediction each. Raises DataError for values of another kind."""
        if not is_single_text(self.metadata.columns):
            return self.rows([row.model_dump() for row in request.rows])
        return self.redacted([request.text] if isinstance(request.text, str) else list(request.text))

    def redacted(self, texts: list[str]) -> list[str]:
        """Replace personal data in texts as in the training data; without a redaction they are as they were."""
        return texts if self.redactor is None else self.redactor.texts(texts)

    @cached_property
    def redactor(self) -> Redactor | None:
        """Redactor of requests; None for a model whose training data was not redacted. Raises DataError without the
        key or a model of names."""
        if self.metadata.redaction is None:
            return None
        from raypath.components.privacy.keys import key_folder
        from raypath.components.privacy.redactor import redactor_of

        return redactor_of(self.metadata.redaction, key_folder(None))

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Render rows of input values by column name as texts. Raises DataError."""
        names = dict.fromkeys(column.name for column in inputs_of(self.metadata.columns))
        unknown = next((name for row in rows for name in row if name not in names), None)
        values = {name: [row.get(name) for row in rows] for name in [*names, *([unknown] if unknown else [])]}
        return self.renderer.values(values)

    @cached_property
    def renderer(self) -> Renderer:
        """Text form of the model's input columns."""
        from raypath.components.data.rendering import Renderer

        return Renderer(self.metadata.columns, self.metadata.form, self.redacted if self.redactor else None)

    def predictions(self, decoded: Array) -> list[BaseModel]:
        """Build one prediction per row, as sent to clients."""
        raise NotImplementedError

    def columns(self, decoded: Array) -> dict[str, pa.Array]:
        """Convert predictions to table columns: `predicted`, and `score` where there is one."""
        raise NotImplementedError

    def agrees(self, decoded: Array, other: Task, others: Array) -> list[bool]:
        """Return, for each row, whether another model of this task predicts the same; `others` is its `decoded`."""
        return [a == b for a, b in zip(_predicted(self, decoded), _predicted(other, others), strict=True)]

    def target_columns(self, targets: Array) -> dict[str, pa.Array]:
        """Convert targets to table columns: `label`."""
        raise NotImplementedError

    def plots(self, targets: Array, decoded: Array, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Draw matplotlib figures by name."""
        return {}

    # -- shared

    def score(self, metric: str | None, metrics: Mapping[str, float]) -> float:
        """Return a metric with the sign such that higher is better; None uses the default. Raises ParamsError for an
        unknown one."""
        name = metric or self.metric
        if name not in metrics:
            known = ", ".join(key for key in metrics if "/" not in key)
            raise ParamsError(f"there is no metric {name}", fix=f"use one of {known}")
        return -metrics[name] if self.is_lower(name) else metrics[name]

    @classmethod
    def is_lower(cls, metric: str) -> bool:
        """Return True if lower is better; also for interval bounds and values per label."""
        return metric.partition("/")[0].removesuffix("_low").removesuffix("_high") in cls.lower_is_better

    def _check(self) -> None:
        if self.metadata.label_kind not in self.kinds:
            wanted = " or ".join(sorted({kind.general for kind in map(LabelKind, self.kinds)}))
            what = f"task {self.name} got labels of kind {self.metadata.label_kind}; wanted {wanted}"
            raise DataError(what, fix="set -s read.kind=class|set|number, or another finetune.task")
        for column in inputs_of(self.metadata.columns):
            if self.input_kinds is not None and column.kind not in self.input_kinds:
                wanted = " or ".join(sorted(self.input_kinds))
                what = f"task {self.name} got the input {column.name} of kind {column.kind}; wanted {wanted}"
                raise DataError(what, fix=f"set -s read.kinds.{column.name}=, or another finetune.task")
        changed = self.objective.model_dump(exclude_defaults=True)
        for name in changed:
            if name not in self.objectives:
                have = ", ".join(sorted(self.objectives)) or "none"
                fix = f"leave finetune.objective.{name} out; it takes {have}"
                raise ParamsError(f"task {self.name} does not support objective.{name}", fix=fix)


def _predicted(task: Task, decoded: Array) -> list[tuple[Any, ...]]:
    """Return the predicted columns of each row, by name, without scores."""
    columns = task.columns(decoded)
    return list(
        zip(*(columns[name].to_pylist() for name in sorted(columns) if name.startswith("predicted")), strict=True)
    )
