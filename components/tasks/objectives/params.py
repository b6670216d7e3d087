"""Settings of the training objective, beyond the plain loss of a task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raypath.components.core.params import Fraction, Params


class ObjectiveParams(Params):
    """Changes to a task's loss; a task rejects those it does not support."""

    class_weights: Literal["none", "balanced"] = "none"
    """balanced weights a class by rows / (classes * rows of the class), as scikit-learn does: rare classes count
    more."""
    focal: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Focal loss: rows already predicted correctly count less, the more so the higher this is; 0 is cross entropy."""
    label_smoothing: Fraction = 0.0
    """Label smoothing: share of the target's probability that is spread over all classes; of a preference, the
    probability that a pair's labels are swapped, below 0.5."""
    threshold: Literal["none", "valid"] = "none"
    """valid chooses the decision threshold with the best F1 on the validation split: for two classes, or for several
    classes per row."""
    mask: Fraction = 0.15
    """Share of the tokens that a masked language model has to predict."""
    preference: Literal["dpo", "dpo_norm", "ipo", "simpo", "orpo", "kto"] = "dpo"
    """Objective of the task `preference`. dpo, dpo_norm (DPO per token), ipo and kto need a reference model,
    simpo and orpo do not; kto takes single responses that are labelled good or bad."""
    beta: Annotated[float, Field(gt=0, le=100)] | None = None
    """Strength of a preference objective; by default 0.1 for dpo, ipo, orpo and kto, 5 for dpo_norm and 2 for simpo.
    With dpo, dpo_norm, ipo and kto, a higher value keeps the model closer to the reference."""
    margin: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Margin of simpo between the rewards of a pair."""
