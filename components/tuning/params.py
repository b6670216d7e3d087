"""The settings of `tune`: which settings of fine-tuning are searched, how, and for how long."""

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
    """Which settings are searched, how, and for how long."""

    trials: NonNegative = 8
    """Settings that are tried, at most; 0 skips the search."""
    seconds: Seconds = 0.0
    """Seconds after which the search ends with the best so far; 0 sets no end."""
    lr: Range = (5e-5, 2e-4)
    """Learning rates searched, on a log scale; two equal values search none."""
    weight_decay: Range = (0.01, 0.01)
    """Weight decays searched, on a log scale; two equal values search none."""
    space: Space = Field(default_factory=dict)
    """Other settings of `finetune` searched: choices, such as {"frozen_layers": [0, 2, 4]}, or a range on a log scale,
    such as {"head_factor": {"low": 1, "high": 30}}."""
    metric: str | None = None
    """The figure on the validation part that trials are judged by; none takes the log loss where the task has one,
    since it tells more of short trials than F1, else the task's own."""
    rows: NonNegative = 512
    """Training rows of a trial; 0 takes all."""
    valid_rows: NonNegative = 256
    """Validation rows that a trial is judged by; 0 takes all."""
    epochs: NonNegative = 1
    """Passes of a trial over its rows; 0 takes finetune.epochs."""
    rungs: Positive = 2
    """Looks at the validation part in a trial, at equal shares of its steps; at each, the scheduler decides."""
    search: Literal["tpe", "random", "grid"] = "tpe"
    """How settings are proposed: by Optuna from what trials have shown (a tree of Parzen estimators), at random, or all
    that a grid holds."""
    points: Positive = 3
    """Values that a grid takes of a range, at equal steps of the logarithm."""
    scheduler: Literal["asha", "none", "pbt"] = "asha"
    """What happens at a rung: asha stops the worse trials, pbt turns them into clones of better ones with other
    settings."""
    reduction: Annotated[int, Field(ge=2)] = 2
    """ASHA keeps one in this many at a rung."""
    concurrent: NonNegative = 0
    """Trials that run side by side; 0 is one a GPU or a core (finetune.threads of them), and one at a time for trials
    that are whole fine-tunings: with other threads than finetune's their weights would be others than finetune's."""

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
        """What is searched, in the order of the fields."""
        return dimensions({"lr": self.lr, "weight_decay": self.weight_decay}, self.space)
