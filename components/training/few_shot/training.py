"""Steps, loss and head of `method=linear_probe` and `method=contrastive`, in the training loop of all methods.

The encoder is trained for all steps, or not at all; then the head is fitted to the train split, and the model is
evaluated once. There is no early stop: the valid split of few rows is too small to choose weights by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array, Batch
from raypath.components.data.wording import plural
from raypath.components.training.batches.token_dataset import TokenRows
from raypath.components.training.few_shot.contrastive import PairPlan, embed, pair_loss
from raypath.components.training.few_shot.fitted_head import fit_head
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.model_setup import PreparedModel
from raypath.components.training.params import FITTED


class FewShotTraining:
    """Steps, loss and head of one training."""

    def __init__(self, job: TrainingJob, prepared: PreparedModel) -> None:
        self.job, self.prepared = job, prepared
        self.model, self.pad = prepared.model, int(getattr(prepared.model.config, "pad_token_id", None) or 0)

    def plan(self, rows: TokenRows, budget: int, seed: int, epoch: int) -> Sequence[Array]:
        """Plan an epoch; without steps for linear_probe."""
        return () if self.job.params.method == "linear_probe" else PairPlan(rows, budget, seed, epoch)

    def loss(self, batch: Batch) -> Any:
        """Return the contrastive loss of a batch times its rows, which the step divides by."""
        return pair_loss(embed(self.model, batch), batch["targets"]) * self.job.task.weight(batch)

    def fit_head(self) -> None:
        """Fit the head to the train split."""
        budget = max(self.prepared.memory_plan.micro_tokens, int(self.job.train.lengths.max(initial=1)))
        fit_head(self.job.task, self.model, self.job.train, budget, self.pad, self.prepared.bf16, self.job.seed)


def few_shot_training(job: TrainingJob, prepared: PreparedModel) -> FewShotTraining | None:
    """Return steps, loss and head of the method of a job, None for a method of the plain loop."""
    if job.params.method not in FITTED:
        return None
    _warn_of_single_rows(job)
    return FewShotTraining(job, prepared)


def _warn_of_single_rows(job: TrainingJob) -> None:
    """Log a warning for classes with a single row: they have no pair, and no row to hold out."""
    counts = np.bincount(job.train.targets, minlength=len(job.task.metadata.labels))
    alone = [job.task.metadata.labels[n] for n in np.flatnonzero(counts == 1)]
    if alone:
        names = ", ".join(alone[:5]) + (f" and {len(alone) - 5} others" if len(alone) > 5 else "")
        job.log.warning(
            "%s with a single row in train (%s): contrastive learning has no pair of it, and it is never held out; "
            "give at least two rows a class",
            *(plural(len(alone), "class", "classes"), names),
        )
