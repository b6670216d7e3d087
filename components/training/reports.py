"""Reports of a training: progress, curves in MLflow, remarks before the first step and an outlook after the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raypath.components.core.context import Context
from raypath.components.tasks.base import Task
from raypath.components.training.job import Metrics
from raypath.components.training.outlook import Outlook
from raypath.components.training.params import ResolvedParams

if TYPE_CHECKING:
    from raypath.components.training.loop.trainer import Training

CURVE_POINTS = 500
"""Steps at most whose loss and rate are logged to MLflow; of more, every n-th is."""


class TrainingReports:
    """Reports of one training to the step's context; `on_step` and `on_evaluation` are for its job.

    seconds: estimated time of all passes; 0 for none. A private training reports neither the loss, the norm nor the
    number of rows of a step: they would reveal rows.
    """

    def __init__(self, ctx: Context, task: Task, params: ResolvedParams, seconds: float = 0.0) -> None:
        self.ctx, self.task, self.params = ctx, task, params
        self.outlook, self.private = Outlook(params, seconds), params.privacy.enabled

    def on_step(self, step: int, steps: int, metrics: Metrics) -> None:
        """Report a step to the live view and, if it is a point of the curve, to MLflow."""
        if self.private:
            self.ctx.report(step, steps, "")
            return
        self.outlook.trained(metrics["loss"])
        self.ctx.report(step, steps, f"loss {metrics['loss']:.3f}, {metrics['rows_per_second']:,.0f} rows/s")
        if step % max(1, steps // CURVE_POINTS) == 0:
            self.ctx.track.metrics({f"train/{name}": value for name, value in metrics.items()}, step)

    def on_evaluation(self, step: int, metrics: Metrics) -> None:
        """Report a validation pass to MLflow, without the metrics of single classes."""
        self.outlook.evaluated(step, self.task.score(self.params.metric, metrics))
        self.ctx.track.metrics({f"valid/{name}": value for name, value in metrics.items() if "/" not in name}, step)

    def begin(self, training: Training) -> None:
        """Record the facts of a training that starts or resumes, and warn of what differs from its settings."""
        from raypath.components.training.loop.model_setup import remarks

        self.ctx.track.params({f"run.{name}": value for name, value in training.facts().items()})
        for remark in remarks(training.prepared):
            self.ctx.log.warning("%s", remark)

    def end(self, training: Training) -> None:
        """Report the time of a training against its estimate, and whether more passes would help."""
        if self.private:
            return
        if training.resume_point is not None:
            self.outlook.seconds = 0.0  # this process saw a part of the training
        self.ctx.track.metrics(self.outlook.report(training.progress.step, training.steps, self.ctx.log))
