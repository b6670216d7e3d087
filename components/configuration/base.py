"""Choice of a base model by the texts."""

from __future__ import annotations

from raypath.components.core.artifacts import Dataset
from raypath.components.models.base_models import resolved_base


def choose_base(base: str, train: Dataset, seed: int) -> tuple[str, str]:
    """Return (base model for the texts of `train`, reason); a base that is set is kept, without a reason."""
    return resolved_base(base), ""
