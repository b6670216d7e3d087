"""What training drives down, beyond the plain loss of a task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raypath.components.core.params import Fraction, Params


class ObjectiveParams(Params):
    """Changes to a task's loss; what a task has no use for is refused by it."""

    class_weights: Literal["none", "balanced"] = "none"
    """balanced weighs a class by rows / (classes * rows of the class), as scikit-learn does: rare ones count more."""
    focal: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Focal loss: rows that are already right count less, the more so the higher this is; 0 is cross entropy."""
    label_smoothing: Fraction = 0.0
    """Share of the target's probability that is spread over all classes."""
    threshold: Literal["none", "valid"] = "none"
    """valid chooses the probability from which a class is predicted, where F1 on the validation part is best: for
    two classes, or for several classes a row."""
    mask: Fraction = 0.15
    """Share of the tokens that a masked language model has to predict."""
