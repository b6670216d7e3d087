"""Settings of `tune`: search space, search algorithm, scheduler and budget."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from raypath.components.core.errors import ParamsError
from raypath.components.core.params import NonNegative, Params, Positive, Seconds
from raypath.components.tuning.search_space import MOVABLE, Dimension, Space, dimensions


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if not 0 < span[0] <= span[1]:
        raise ValueError("wanted two numbers above 0, the lower one first")
    return span


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class TuneParams(Params):
    """Settings of `tune`."""

    trials: NonNegative = 8
    """Number of trials at most; 0 skips the search."""
    seconds: Seconds = 0.0
    """Time limit of the search in seconds; the best trial so far is used. 0 sets no limit."""
    lr: Range = (5e-5, 2e-4)
    """Learning rates searched, on a log scale; two equal values search none."""
    weight_decay: Range = (0.01, 0.01)
    """Weight decays searched, on a log scale; two equal values search none."""
    space: Space = Field(default_factory=dict)
    """Other settings of `finetune` searched: choices, such as {"frozen_layers": [0, 2, 4]}, or a range on a log scale,
    such as {"head_factor": {"low": 1, "high": 30}}."""
    metric: str | None = None
    """Metric on the validation split that trials are scored by; none uses the log loss if the task has one, since it is
    more informative than F1 for short trials, else the task's default."""
    rows: NonNegative = 512
    """Training rows of a trial; 0 uses all."""
    valid_rows: NonNegative = 256
    """Validation rows of a trial; 0 uses all."""
    epochs: NonNegative = 1
    """Passes of a trial over its rows; 0 uses finetune.epochs."""
    rungs: Positive = 2
    """Validation passes of a trial, at equal shares of its steps; after each the scheduler decides."""
    search: Literal["tpe", "random", "grid"] = "tpe"
    """Search algorithm: Optuna's tree of Parzen estimators, random, or a grid."""
    points: Positive = 3
    """Values of a range in a grid, equally spaced on a log scale."""
    scheduler: Literal["asha", "none", "pbt"] = "asha"
    """Scheduler: asha stops the worse trials at a rung, pbt replaces them with clones of better ones with changed
    settings."""
    reduction: Annotated[int, Field(ge=2)] = 2
    """ASHA keeps one in this many trials at a rung."""
    concurrent: NonNegative = 0
    """Concurrent trials; 0 is one per GPU or core (finetune.threads of them), and one at a time if trials are full
    fine-tunings, since other thread counts would change the weights."""

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        for found in self.searched():
            if found.name == "epochs" and self.epochs:
                what = "tune.space.epochs is searched, but trials have epochs of their own"
                raise ParamsError(what, fix="set -s tune.epochs=0")
            if self.scheduler == "pbt" and (found.name not in MOVABLE or found.integer):
                movable = ", ".join(sorted(MOVABLE))
                raise ParamsError(f"{found.name} cannot change in the middle of a training", fix=f"pbt takes {movable}")
        return self

    def searched(self) -> list[Dimension]:
        """Return the searched dimensions, in the order of the fields."""
        return dimensions({"lr": self.lr, "weight_decay": self.weight_decay}, self.space)
