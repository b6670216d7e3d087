"""Task: the interface between steps, training loop and endpoint, and a kind of model.

A task knows which labels it takes, which head to build, its loss, how to read the head's output, its metrics, its
predictions and its plots. Steps, the training loop and the endpoint know none of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel

from raypath.components.core.arrays import Array, Batch
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import SINGLE_CLASS, LabelKind
from raypath.components.models.base_models import build_model
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.tasks.schemas import Request

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


Plain = Literal["label", "labels", "values", "outputs"]


class Task:
    """What the steps ask of a task. Subclass it, name it, and fill in what differs.

    Shapes: B rows, L tokens, K = `outputs` numbers a row. A batch is a dict of tensors: `input_ids` and
    `attention_mask` int64 [B, L], `targets` [B] or [B, K].
    """

    name: ClassVar[str] = ""
    auto: ClassVar[str] = "AutoModelForSequenceClassification"
    """The transformers Auto class of a model with this task's head."""
    problem: ClassVar[str | None] = None
    """transformers' `problem_type` of the head, for those who open the folder without us."""
    kinds: ClassVar[frozenset[LabelKind]] = SINGLE_CLASS
    """The kinds of labels it takes; see `Dataset.label_kind`."""
    metric: ClassVar[str] = ""
    """The figure that weights and versions are chosen by where the user names none."""
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    """Metrics that are better when they are lower."""
    objectives: ClassVar[frozenset[str]] = frozenset()
    """Fields of ObjectiveParams that it has a use for."""
    request: ClassVar[type[BaseModel]] = Request
    """What a client sends; `texts` reads it."""
    response: ClassVar[type[BaseModel]]
    """What a client is answered: model, version and predictions, one a text."""
    probe: ClassVar[dict[str, Any]] = {"text": ["A lovely cup of tea"]}
    """A made-up request, to see whether an endpoint answers; never a row of the user's."""
    plain: ClassVar[Plain] = "outputs"
    """What a registered version answers where nothing of ours is installed (serving/pyfunc_model.py): a class and its
    probability, the classes of a set, a number a target, or the head's numbers as they are."""

    def __init__(self, metadata: ModelMetadata, objective: ObjectiveParams | None = None) -> None:
        self.metadata = metadata
        self.objective = objective or ObjectiveParams()
        self._check()

    @property
    def outputs(self) -> int:
        """Numbers that `record` keeps a row."""
        return len(self.metadata.labels)

    # -- training

    def fit(self, targets: Array) -> Self:
        """The task as it is once the training targets [N] or [N, K] are known: class weights, scales."""
        return self

    def check_targets(self, targets: Array, part: str) -> None:
        """Refuse targets of a part, train or valid, that are none of this task's. Raises DataError."""

    def build(self, folder: str, dropout: float | None) -> Any:
        """A transformers model with this task's head on the base model in `folder`. Raises DataError."""
        model = build_model(self.auto, folder, self.metadata.labels, dropout)
        if self.problem:
            model.config.problem_type = self.problem
        return model

    def inputs(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch as the model is given it, on the CPU; a language model masks tokens here, by `rng`."""
        return batch

    def forward(self, model: Any, batch: Batch) -> Any:
        """The model's outputs, float [B, K] or [B, L, K]."""
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def weight(self, batch: Batch) -> float:
        """How many terms the loss of a batch sums: its rows, unless a task counts in tokens."""
        return float(len(batch["targets"]))

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """The loss summed over the batch's terms, a scalar tensor; the step divides by the terms of all ranks."""
        raise NotImplementedError

    # -- evaluation

    def record(self, outputs: Any, batch: Batch) -> Any:
        """What evaluation keeps of a batch, [B, outputs]."""
        return outputs

    def decode(self, recorded: Array) -> Array:
        """recorded float32 [B, outputs] -> what `metrics` and answers are made of, such as probabilities."""
        return recorded

    def metrics(self, targets: Array, decoded: Array) -> dict[str, float]:
        """Named figures; keys may hold a class as `f1/<label>`."""
        raise NotImplementedError

    @property
    def needs_calibration(self) -> bool:
        """Whether something is to be chosen on the validation part once training is over."""
        return self.objective.threshold == "valid"

    def calibrate(self, targets: Array, decoded: Array) -> ModelMetadata:
        """The metadata with what is chosen on the validation part; asked where it `settles`."""
        return self.metadata

    def intervals(self, targets: Array, decoded: Array, resamples: int, seed: int) -> dict[str, float]:
        """`<metric>_low` and `<metric>_high` of the main figures, 95% bootstrap intervals; {} for 0 resamples."""
        return {}

    # -- answers

    @classmethod
    def texts(cls, request: Any) -> list[str]:
        """The texts of a request, one prediction each."""
        return [request.text] if isinstance(request.text, str) else list(request.text)

    def predictions(self, decoded: Array) -> list[BaseModel]:
        """One prediction a row, as a client is given it."""
        raise NotImplementedError

    def columns(self, decoded: Array) -> dict[str, pa.Array]:
        """The predictions of rows as columns of a table: `predicted`, and `score` where there is one."""
        raise NotImplementedError

    def target_columns(self, targets: Array) -> dict[str, pa.Array]:
        """The targets of rows as columns of a table: `label`."""
        raise NotImplementedError

    def plots(self, targets: Array, decoded: Array, metrics: Mapping[str, float]) -> dict[str, Any]:
        """matplotlib figures by name."""
        return {}

    # -- shared

    def score(self, metric: str | None, metrics: Mapping[str, float]) -> float:
        """A figure turned so that higher is better; None takes the task's own. Raises ParamsError for one not known."""
        name = metric or self.metric
        if name not in metrics:
            known = ", ".join(key for key in metrics if "/" not in key)
            raise ParamsError(f"there is no metric {name}", fix=f"use one of {known}")
        return -metrics[name] if self.is_lower(name) else metrics[name]

    @classmethod
    def is_lower(cls, metric: str) -> bool:
        """Whether less of a metric is better; the ends of its interval and its figure for one label go with it."""
        return metric.partition("/")[0].removesuffix("_low").removesuffix("_high") in cls.lower_is_better

    def _check(self) -> None:
        if self.metadata.label_kind not in self.kinds:
            wanted = " or ".join(sorted({kind.general for kind in map(LabelKind, self.kinds)}))
            what = f"task {self.name} got labels of kind {self.metadata.label_kind}; wanted {wanted}"
            raise DataError(what, fix="set -s read.kind=class|set|number, or another finetune.task")
        changed = self.objective.model_dump(exclude_defaults=True)
        for name in changed:
            if name not in self.objectives:
                have = ", ".join(sorted(self.objectives)) or "none"
                fix = f"leave finetune.objective.{name} out; it takes {have}"
                raise ParamsError(f"task {self.name} has no use for objective.{name}", fix=fix)
