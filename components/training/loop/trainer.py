"""Training loop of `finetune`, `pretrain` and the trials of `tune`, in one process or several.

The result depends only on settings, rows, seed and thread count: on the CPU, an interrupted run that is resumed from
a checkpoint ends with bit-identical weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from raypath.components.core.arrays import Array
from raypath.components.models.process import configure_process, retained_memory
from raypath.components.training.batches.epoch_plan import EpochPlan
from raypath.components.training.batches.sampler import order_digest, share
from raypath.components.training.batches.token_dataset import TokenRows
from raypath.components.training.checkpoints import checkpoint, resume
from raypath.components.training.differential_privacy.private_steps import private_steps
from raypath.components.training.few_shot.training import few_shot_training
from raypath.components.training.job import Metrics, Progress, TrainingJob
from raypath.components.training.loop import nonfinite
from raypath.components.training.loop.best_weights import BestWeights
from raypath.components.training.loop.model_setup import PreparedModel, check_valid, facts
from raypath.components.training.loop.optimizer import clip_gradients, groups, set_learning_rates
from raypath.components.training.loop.step_monitor import StepMonitor, StepResult
from raypath.components.training.loop.validate import evaluate, forward
from raypath.components.training.runtime import compile as compiling
from raypath.components.training.runtime.memory import reset_peak
from raypath.components.training.runtime.out_of_memory import explained_start, explained_step
from raypath.components.training.runtime.process_group import ProcessGroup
from raypath.components.training.runtime.profiler import profiler_of


def start_training(job: TrainingJob) -> Training:
    """Configure this process for a job and build its training, to be resumed from the last checkpoint if any."""
    group = ProcessGroup(shard=job.params.shard)
    resume_point = resume.find_resume_point(job.scratch)
    execution = resume.resolve_execution(resume_point, job, group)
    configure_process(execution.threads, job.seed)
    with explained_start(job):
        return Training(job, group, resume_point, execution)


class Training:
    """A model being trained; `start_training` builds it. `run` continues from the last checkpoint to the end."""

    def __init__(
        self,
        job: TrainingJob,
        group: ProcessGroup,
        resume_point: resume.ResumePoint | None,
        execution: resume.ExecutionSettings,
    ) -> None:
        self.job, self.task = job, job.task
        self.group, self.resume_point, self.execution = group, resume_point, execution
        self.params = job.params.model_copy(update={"precision": execution.precision})
        self.prepared = PreparedModel(
            self.task, job.folder, self.params, job.train, group, job.scratch, job.concurrent_trials
        )
        self.model, self.wrapped, self.bf16 = self.prepared.model, self.prepared.wrapped, self.prepared.bf16
        check_valid(self.task, self.model, job.folder, job.train, job.valid)
        self.pad = int(getattr(self.model.config, "pad_token_id", None) or 0)
        if self.task.packed:  # its head was trained with the rest of the base
            self.params = self.params.model_copy(update={"head_factor": 1.0})
        self.optimizer = torch.optim.AdamW(groups(self.model, self.params), lr=self.params.lr, fused=True)
        self.few_shot = few_shot_training(job, self.prepared)
        self.private = private_steps(job, self.prepared, group)
        plan: Callable[..., Sequence[Array]] = partial(EpochPlan, padded=self.task.padded)
        if special := self.few_shot or self.private:
            plan = special.plan
        self.epochs = [
            plan(job.train, self.params.batch_tokens, job.seed, epoch) for epoch in range(self.params.epochs)
        ]
        self.steps = sum(len(plan) for plan in self.epochs)
        self.progress = Progress()
        self._saved = time.monotonic()
        self.monitor = StepMonitor(job, group, self.steps)
        self.best = BestWeights(self.prepared, group)

    def facts(self) -> dict[str, Any]:
        """Facts besides the settings that determine the result; recorded in MLflow."""
        return {
            "seed": self.job.seed,
            "threads": self.execution.threads,
            **({} if self.private else {"order": order_digest(self.epochs)}),
            "steps": self.steps,
            **facts(self.prepared),
        }

    def run(self) -> Metrics:
        """Train to the end or an early stop. Return the best validation metrics; the model then has those weights."""
        with retained_memory():
            return self._run()

    def _run(self) -> Metrics:
        callback = self.job.callback
        self._restore()
        callback.on_start(self)
        reset_peak()
        profiler = profiler_of(self.job, self.group.is_rank_zero)
        decision = compiling.load_decision(self.job.scratch)
        compile_at = decision.step if decision else compiling.WARMUP_STEPS
        if self.progress.step >= compile_at:
            self._use_compiled(decision)
        began = time.perf_counter()
        for number, (epoch, step, rows) in enumerate(self._remaining(), 1):
            callback.before_step(self)
            with explained_step(self.job, self.prepared.memory_plan, epoch, step):
                save = self._step(epoch, step, rows)
            save |= callback.checkpoint_due(self)
            if self.progress.step == compile_at:
                self._use_compiled(decision or self._consider_compiling((time.perf_counter() - began) / number))
            if profiler is not None:
                profiler.step()
            if self._evaluation_due():
                self._evaluate()
            if self.progress.stopped:
                break
            if save:
                self.monitor.flush()
                callback.before_checkpoint(self)
                self._save("last")
                callback.after_checkpoint(self)
                self._saved = time.monotonic()
        if profiler is not None:
            profiler.stop()
        self.monitor.flush()
        if self.progress.best == -math.inf or (self.progress.step == self.steps and not self._evaluation_due()):
            self._evaluate()
        self.best.restore()
        return self.progress.best_metrics

    def _use_compiled(self, decision: compiling.Decision | None) -> None:
        if decision is not None and decision.compiled and self.wrapped is self.model:
            self.wrapped = compiling.compile_model(self.model)

    def _consider_compiling(self, step_seconds: float) -> compiling.Decision | None:
        """Try torch.compile once a run, if the remaining steps could repay the trial."""
        plain = self.few_shot is None and self.private is None
        alone = self.group.world_size == 1 and not self.job.train.has_features and plain
        # Attention inside rows has other shapes in each step.
        if not alone or self.task.packed or not compiling.worth_trying(step_seconds, self.steps - self.progress.step):
            return None
        batches = [self._batches(0, step, rows) for step, rows in enumerate(self.epochs[0][: compiling.WARMUP_STEPS])]

        def step(model: torch.nn.Module, micro: list[dict[str, torch.Tensor]]) -> None:
            self.wrapped = model
            try:
                self._backward([dict(batch) for batch in micro], 1.0)
            finally:
                # Also when the compiler fails halfway: the next step has to start without gradients.
                self.optimizer.zero_grad(set_to_none=True)

        found = compiling.compile_if_faster(self.model, batches, step)
        self.wrapped = self.model if found is None else found
        return compiling.save_decision(self.job.scratch, compiling.Decision(found is not None, self.progress.step))

    def _remaining(self) -> Iterator[tuple[int, int, Array]]:
        """Yield (epoch, step, row numbers) of every remaining step."""
        start = self.progress.epoch, self.progress.step_in_epoch
        for epoch, plan in enumerate(self.epochs):
            first = 0 if epoch > start[0] else start[1] if epoch == start[0] else len(plan)
            for step in range(first, len(plan)):
                if not self.progress.stopped:
                    yield epoch, step, plan[step]

    def _step(self, epoch: int, step: int, rows: Array) -> bool:
        """Update the weights once. Return True if a checkpoint is due, the same on every rank."""
        started = time.perf_counter()
        rate = set_learning_rates(self.optimizer, self.params, self.progress.step, self.steps)
        # Dropout and masks depend only on the position, so resuming needs no random state.
        torch.manual_seed(hash((self.job.seed, epoch, step, self.group.rank)))
        if self.private is not None:
            loss, norm = self.private.backward(self.progress.step, rows)
        else:
            batches = self._batches(epoch, step, rows)
            loss = self._backward(batches, self._total(batches))
            norm = clip_gradients(self.model, self.optimizer, self.params.clip, self.group.shard)
        # One reduction for all three; the sum of the norms is finite only if all are.
        values = self.group.sum_async(loss, norm, float(self.group.is_rank_zero and self._save_due()))
        result = StepResult(self.progress.step + 1, (epoch, step, rows), rate, started, values)
        if not self.monitor.delay:
            self.monitor.check(result)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        at = self.progress
        at.step += 1
        at.epoch, at.step_in_epoch = (epoch, step + 1) if step + 1 < len(self.epochs[epoch]) else (epoch + 1, 0)
        return self.monitor.add(result)

    def _batches(self, epoch: int, step: int, rows: Array) -> list[dict[str, torch.Tensor]]:
        """Build this rank's micro-batches of a step, on the CPU. An empty one has row 0 with weight 0."""
        train, packed, most = self.job.train, self.task.packed, self.prepared.memory_plan.micro_tokens
        cuts = share(train.lengths, rows, self.group.world_size, most, self.task.padded)[self.group.rank]
        rng = np.random.default_rng([self.job.seed, epoch, step, self.group.rank])
        made = []
        for cut in cuts:
            chosen = cut if len(cut) else rows[:1]
            batch = self.task.inputs(train.packed(chosen) if packed else train.batch(chosen, self.pad), rng)
            made.append({**batch, "weight": torch.tensor(self.task.weight(batch) if len(cut) else 0.0)})
        return made

    def _total(self, batches: list[dict[str, torch.Tensor]]) -> float:
        """Number of loss terms in this step, or the sum of their weights, over all ranks."""
        mine = sum(float(batch["weight"]) for batch in batches)
        return (mine if self.group.world_size == 1 else self.group.sum(mine)[0]) or 1.0

    def _backward(self, batches: list[dict[str, torch.Tensor]], total: float) -> torch.Tensor:
        """Compute gradients of the mean loss over all ranks; return this rank's share of that mean."""
        loss = torch.zeros((), device=self.group.device)
        for n, batch in enumerate(batches):
            weight = float(batch.pop("weight"))
            moved = {name: value.to(self.group.device, non_blocking=True) for name, value in batch.items()}
            with self.group.syncing(self.wrapped, last=n == len(batches) - 1):
                with torch.autocast(self.group.device.type, torch.bfloat16, enabled=self.bf16):
                    if self.few_shot is None:
                        part = self.task.loss(forward(self.task, self.wrapped, moved), moved)
                    else:
                        part = self.few_shot.loss(moved)
                    part = part * (float(weight > 0) / total)
                # Ranks average their gradients; multiplied by the world size, the result is the mean over terms.
                (part * self.group.world_size).backward()
            loss += part.detach()
        return loss

    def _evaluation_due(self) -> bool:
        if self.few_shot is not None or self.private is not None:
            return False  # the last weights are kept: those of a fitted head, or without a choice by validation rows
        if self.params.evaluate_every:
            return self.progress.step % self.params.evaluate_every == 0
        return self.progress.step_in_epoch == 0

    def predict(self, rows: TokenRows) -> Array:
        """Compute `task.record` of every row, float32 [N, outputs], in the order of the rows."""
        budget = max(self.prepared.memory_plan.micro_tokens, int(rows.lengths.max(initial=1)))
        return evaluate(self.task, self.prepared.module, rows, self.group, budget, self.pad, self.bf16)

    def validate(self) -> Metrics:
        """Compute the validation metrics of the current weights. Raises DataError for non-finite outputs."""
        if self.few_shot is not None:
            self.few_shot.fit_head()
        recorded = self.predict(self.job.valid)
        nonfinite.check_predictions(recorded, self.progress.step, self.job.scratch)
        return self.task.metrics(self.job.valid.targets, self.task.decode(recorded))

    def _evaluate(self) -> None:
        """Run a validation pass; keep the weights if they are the best so far."""
        self.monitor.flush()
        metrics = self.validate()
        at, score = self.progress, self.task.score(self.params.metric, metrics)
        nonfinite.check_score(self.params.metric or self.task.metric, score, at.step, self.job.scratch)
        if self.group.is_rank_zero:
            self.job.on_evaluation(at.step, metrics)
        if score > at.best:
            at.best, at.best_metrics, at.best_step, at.worse = score, metrics, at.step, 0
            self.best.capture()
            if self.group.sum(float(self.group.is_rank_zero and self._save_due()))[0]:
                self._save("best")
        else:
            at.worse += 1
            at.stopped = bool(self.params.patience) and at.worse >= self.params.patience

    def _save_due(self) -> bool:
        return self.job.scratch is not None and time.monotonic() - self._saved >= self.params.checkpoint_seconds

    def _save(self, name: str) -> None:
        """Write a checkpoint, `last` or `best`, and the best weights it refers to."""
        if self.job.scratch is None:
            return
        if name == "last":
            self.best.write(self.job.scratch / "best", self.progress.best_step)
        else:
            self.best.written = self.progress.step
        made = checkpoint.snapshot(self.model, self.optimizer, self.group.is_rank_zero)
        if self.group.is_rank_zero:
            state = {**asdict(self.progress), "execution": asdict(self.execution)}
            checkpoint.save(self.job.scratch / name, self.progress.step, made, state)

    def _restore(self) -> None:
        """Load the checkpoint to resume from and the best weights up to it."""
        self.wrapped.train()
        if self.group.is_rank_zero:
            resume.drop_newer(self.job.scratch, self.resume_point, self.job.log)
        if self.resume_point is None:
            return
        if self.resume_point.best is not None:
            self.best.load(self.resume_point.best)
        state = checkpoint.load(self.resume_point.at, self.model, self.optimizer)
        self.progress = Progress(**{k: v for k, v in state.items() if k in Progress.__dataclass_fields__})
