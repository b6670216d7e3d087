"""Regression: one or several numbers per text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from raypath.components.core.arrays import Array, Batch
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.tasks.base import Task
from raypath.components.tasks.objectives.losses import sum_rows
from raypath.components.tasks.schemas import NumberPrediction, NumberResponse

if TYPE_CHECKING:
    from raypath.components.evaluation.outcomes import Outcomes

SAME = 0.1
"""Difference of two predictions, in standard deviations of the target, up to which they agree."""


class Regression(Task):
    """T numbers per row, named by `metadata.labels`. The head predicts standard deviations from the training mean.

    Targets and everything after `decode` are in the user's units, float32 [N, T].
    """

    name = "regression"
    kinds = frozenset({LabelKind.NUMBER})
    metric = "r2"
    lower_is_better = frozenset({"mse", "rmse", "mae"})
    problem = "regression"
    response = NumberResponse
    plain = "values"

    def fit(self, targets: Array) -> Self:
        """Fit mean and standard deviation of each training target; the latter is 1 for a constant target.

        Raises DataError for a non-finite target, or a wrong number of targets.
        """
        self.check_targets(targets, "train")
        if self.metadata.privacy is not None:
            return self  # scaled by bounds that are known without the rows
        wide = targets.astype(np.float64)
        means, scales = wide.mean(axis=0), wide.std(axis=0)
        # Rounding leaves a tiny deviation for a constant column.
        scales = np.where(scales > 1e-7 * np.abs(means), scales, 1.0)
        metadata = self.metadata.model_copy(update={"means": tuple(means.tolist()), "scales": tuple(scales.tolist())})
        return type(self)(metadata, self.objective)

    def check_targets(self, targets: Array, split: str) -> None:
        """Raise DataError for non-finite targets, or a wrong number of them."""
        names = self.metadata.labels
        if targets.ndim != 2 or targets.shape[1] != len(names):
            what = f"targets of {split} of shape {targets.shape}; wanted {len(names)} numbers a row: {', '.join(names)}"
            raise DataError(what, fix="name as many columns with -s read.label=")
        wrong = ~np.isfinite(targets)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            what = f"target {names[column]} of row {row} of {split} is NaN or infinite; wanted a number"
            raise DataError(what, fix="leave such rows out of the data")

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Squared error in standard deviations: mean over targets, sum over rows. outputs and targets [B, T]."""
        import torch

        means, scales = (torch.as_tensor(part, dtype=torch.float32, device=outputs.device) for part in self._scale())
        losses = ((outputs.float() - (batch["targets"] - means) / scales) ** 2).mean(dim=1)
        return sum_rows(losses, batch)

    def decode(self, recorded: Array) -> Array:
        """Convert standard deviations [B, T] to the user's units, float64 [B, T]."""
        means, scales = self._scale()
        return np.asarray(np.asarray(recorded, dtype=np.float64) * scales + means)

    def _scale(self) -> tuple[Array, Array]:
        """Return mean and scale of each target, 0 and 1 before `fit`."""
        count = len(self.metadata.labels)
        return np.array(self.metadata.means or (0.0,) * count), np.array(self.metadata.scales or (1.0,) * count)

    def metrics(self, targets: Array, decoded: Array) -> dict[str, float]:
        """Compute mse, rmse, mae, r2, spearman and pearson; for several targets the mean, and each as `r2/<name>`."""
        wide = np.asarray(targets, dtype=np.float64)
        each = [target_metrics(wide[:, t], decoded[:, t]) for t in range(wide.shape[1])]
        found = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
        if len(each) > 1:
            named = zip(self.metadata.labels, each, strict=True)
            found |= {f"{name}/{label}": value for label, one in named for name, value in one.items()}
        return found

    def intervals(self, targets: Array, decoded: Array, resamples: int, seed: int) -> dict[str, float]:
        """Compute intervals of r2, mae and spearman; for several targets of their means."""
        from raypath.components.evaluation.bootstrap import number_intervals

        return number_intervals(np.asarray(targets, dtype=np.float64), decoded, resamples, seed)

    def outcomes(self, metric: str, targets: Array, decoded: Array, labels: tuple[str, ...] = ()) -> Outcomes:
        """Return outcomes by row for a metric; see `number_outcomes`."""
        from raypath.components.evaluation.outcomes import number_outcomes

        order, names = self._order(labels), labels or self.metadata.labels
        try:
            return number_outcomes(metric, np.asarray(targets)[:, order], decoded[:, order], names)
        except KeyError:
            return super().outcomes(metric, targets, decoded, labels)

    def agrees(self, decoded: Array, other: Task, others: Array) -> list[bool]:
        """Return, for each row, whether no number differs by more than SAME standard deviations."""
        order = [other.metadata.labels.index(name) for name in self.metadata.labels]
        close = np.abs(decoded - others[:, order]) <= SAME * self._scale()[1]
        return [bool(each) for each in close.all(axis=1)]

    def predictions(self, decoded: Array) -> list[BaseModel]:
        """Build predictions: the number of each target by name."""
        names = self.metadata.labels
        return [NumberPrediction(values=dict(zip(names, map(float, row), strict=True))) for row in decoded]

    def columns(self, decoded: Array) -> dict[str, pa.Array]:
        """Column `predicted`, float64; for several targets `predicted_<name>`."""
        return self._columns("predicted", decoded)

    def target_columns(self, targets: Array) -> dict[str, pa.Array]:
        """Column `label`, float32; for several targets `label_<name>`."""
        return self._columns("label", targets)

    def _columns(self, what: str, numbers: Array) -> dict[str, pa.Array]:
        names = self.metadata.labels
        keys = [what] if len(names) == 1 else [f"{what}_{name}" for name in names]
        return {key: pa.array(np.ascontiguousarray(numbers[:, t])) for t, key in enumerate(keys)}

    def plots(self, targets: Array, decoded: Array, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Draw predicted against actual numbers, and residuals."""
        from raypath.components.evaluation.plots import regression as scatter

        return {
            "predicted": scatter.predicted(targets, decoded, self.metadata.labels),
            "residuals": scatter.residuals(targets, decoded, self.metadata.labels),
        }


def target_metrics(targets: Array, predictions: Array) -> dict[str, float]:
    """Compute metrics of one target, float64 [N]. r2 by scikit-learn; correlations by SciPy, 0 if one side is
    constant."""
    from scipy.stats import pearsonr, spearmanr  # type: ignore[import-untyped]
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    flat = len(targets) < 2 or np.ptp(targets) == 0 or np.ptp(predictions) == 0
    mse = float(mean_squared_error(targets, predictions))
    return {
        "mse": mse,
        "rmse": mse**0.5,
        "mae": float(mean_absolute_error(targets, predictions)),
        "r2": float(r2_score(targets, predictions)) if len(targets) > 1 else 0.0,
        "spearman": 0.0 if flat else float(spearmanr(targets, predictions).statistic),
        "pearson": 0.0 if flat else float(pearsonr(targets, predictions).statistic),
    }
