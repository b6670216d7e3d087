"""Settings of differential privacy, `finetune.privacy`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raypath.components.core.params import NonNegative, Params, Positive

Above0 = Annotated[float, Field(gt=0)]


class PrivacyParams(Params):
    """Settings of DP-SGD (extra `dp`): what a model reveals about a training row is bounded by epsilon and delta."""

    epsilon: Above0 | None = None
    """Bound of the privacy loss: the noise is chosen so that all steps together stay within it, and with
    `noise_multiplier` training ends before it is exceeded. none, without `noise_multiplier`, trains without privacy."""
    noise_multiplier: Above0 | None = None
    """Standard deviation of the noise in units of `clip`; none follows from `epsilon`."""
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Chance with which the bound may fail, below 1 / rows; none takes a tenth of that."""
    clip: Above0 = 1.0
    """Norm to which the gradient of each row, or of each group, is clipped."""
    batch_rows: NonNegative = 0
    """Expected rows of a step: each row is in a step with the same chance, independently of the others. 0 follows from
    the number of rows."""
    unit: Literal["row", "group"] = "row"
    """What is protected: one row, or all rows with the same value of the column `read.group`, such as a person."""
    rows_per_group: Positive = 10
    """Rows of a group that are trained on, at most; the others are left out. For unit=group."""
    total_epsilon: Above0 | None = None
    """Bound over all private trainings on the same data that this project has recorded; a training that would exceed
    it is rejected. none warns only."""
    target_low: float | None = None
    """Least number that a target may have, for regression: known without the rows, which are not looked at."""
    target_high: float | None = None
    """Greatest number that a target may have, for regression."""

    @property
    def enabled(self) -> bool:
        """True if training is to be private."""
        return self.epsilon is not None or self.noise_multiplier is not None
