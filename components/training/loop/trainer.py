"""The one training loop: `finetune` and `pretrain` run it whole, `tune` runs short ones of it, one process or many.

Its course depends on the settings, the rows, the seed and the thread count alone; a run that is killed and resumed
from a checkpoint ends in the same weights, bit for bit, on the CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from raypath.components.core.arrays import Array
from raypath.components.training.batches.sampler import order_digest, plan_epoch, share
from raypath.components.training.batches.token_dataset import TokenDataset
from raypath.components.training.checkpoints import checkpoint as checkpoints
from raypath.components.training.checkpoints import resume as resuming
from raypath.components.training.job import Metrics, Progress, TrainingJob
from raypath.components.training.loop import nonfinite
from raypath.components.training.loop.best_weights import BestWeights
from raypath.components.training.loop.model_setup import PreparedModel, check_valid, facts
from raypath.components.training.loop.optimizer import groups, set_learning_rates
from raypath.components.training.loop.step_monitor import StepMonitor, StepResult
from raypath.components.training.loop.validate import evaluate, forward
from raypath.components.training.runtime import compile as compiling
from raypath.components.training.runtime.memory import reset_peak
from raypath.components.training.runtime.process_group import ProcessGroup
from raypath.components.training.runtime.profiler import Profiler


class Training:
    """A model being trained. `run` goes from the last checkpoint, or the start, to the end."""

    def __init__(self, job: TrainingJob) -> None:
        self.job, self.params, self.task = job, job.params, job.task
        self.group = ProcessGroup(shard=job.params.shard)
        self.start = resuming.find_resume_point(job.scratch)
        self.execution = resuming.resolve_execution(self.start, job, self.group)
        self.params = job.params.model_copy(update={"precision": self.execution.precision})
        torch.set_num_threads(self.execution.threads)
        torch.manual_seed(job.seed)
        self.prepared = PreparedModel(
            self.task, job.folder, self.params, job.train, self.group, job.scratch, job.concurrent_trials
        )
        self.model, self.wrapped, self.bf16 = self.prepared.model, self.prepared.wrapped, self.prepared.bf16
        check_valid(self.task, self.model, job.folder, job.train, job.valid)
        self.pad = int(getattr(self.model.config, "pad_token_id", None) or 0)
        self.optimizer = torch.optim.AdamW(groups(self.model, self.params), lr=self.params.lr, fused=True)
        lengths = job.train.lengths
        self.epochs = [
            plan_epoch(lengths, self.params.batch_tokens, job.seed, epoch) for epoch in range(self.params.epochs)
        ]
        self.steps = sum(len(plan) for plan in self.epochs)
        self.progress = Progress()
        self._saved = time.monotonic()
        self.monitor = StepMonitor(job, self.group, self.steps)
        self.best = BestWeights(self.prepared, self.group)

    def facts(self) -> dict[str, Any]:
        """What the course of the run depends on beside the settings."""
        return {
            "seed": self.job.seed,
            "threads": self.execution.threads,
            "order": order_digest(self.epochs),
            "steps": self.steps,
            **facts(self.prepared),
        }

    def run(self) -> Metrics:
        """Train to the end or to an early stop. Returns the best validation metrics; the model holds those weights."""
        self._restore()
        reset_peak()
        profiler = self._profiler()
        decision = compiling.load_decision(self.job.scratch)
        compile_at = decision.step if decision else compiling.WARMUP_STEPS
        if self.progress.step >= compile_at:
            self._use_compiled(decision)
        began = time.perf_counter()
        for number, (epoch, step, rows) in enumerate(self._remaining(), 1):
            due = self._step(epoch, step, rows)
            if self.progress.step == compile_at:
                self._use_compiled(decision or self._consider_compiling((time.perf_counter() - began) / number))
            if profiler is not None:
                profiler.step()
            if self._evaluation_due():
                self._evaluate()
            if self.progress.stopped:
                break
            if due:
                self.monitor.flush()
                self._save("last")
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
        """Once a run: try torch.compile where the rest of the run could repay it."""
        alone = self.group.world_size == 1 and self.job.train.features is None
        if not alone or not compiling.worth_trying(step_seconds, self.steps - self.progress.step):
            return None
        batches = [self._batches(0, step, rows) for step, rows in enumerate(self.epochs[0][: compiling.WARMUP_STEPS])]

        def step(model: torch.nn.Module, micro: list[dict[str, torch.Tensor]]) -> None:
            self.wrapped = model
            try:
                self._backward([dict(batch) for batch in micro], 1.0)
            finally:
                # Also where a compiler gives up halfway: the next step begins with no gradients.
                self.optimizer.zero_grad(set_to_none=True)

        found = compiling.compile_if_faster(self.model, batches, step)
        self.wrapped = self.model if found is None else found
        return compiling.save_decision(self.job.scratch, compiling.Decision(found is not None, self.progress.step))

    def _profiler(self) -> Profiler | None:
        if not self.params.profile or not self.group.is_rank_zero or self.job.scratch is None:
            return None
        return Profiler(self.params.profile, self.job.scratch / "profile", self.job.on_profile)

    def _remaining(self) -> Iterator[tuple[int, int, Array]]:
        """Every step that is still to be done, from where the progress stands."""
        first = self.progress.epoch, self.progress.step_in_epoch
        for epoch, plan in enumerate(self.epochs):
            for step, rows in enumerate(plan):
                if (epoch, step) >= first and not self.progress.stopped:
                    yield epoch, step, rows

    def _step(self, epoch: int, step: int, rows: Array) -> bool:
        """One update of the weights. Returns whether a checkpoint is due, the same on every rank."""
        started = time.perf_counter()
        rate = set_learning_rates(self.optimizer, self.params, self.progress.step, self.steps)
        # Dropout and masks depend on the position alone: resuming needs no state of random numbers.
        torch.manual_seed(hash((self.job.seed, epoch, step, self.group.rank)))
        batches = self._batches(epoch, step, rows)
        total = self._total(rows, batches)
        loss = self._backward(batches, total)
        length = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.params.clip)
        # One sum for all: that of the norms is a number where all are.
        figures = self.group.sum_async(loss, length, float(self.group.is_rank_zero and self._save_due()))
        taken = StepResult(self.progress.step + 1, (epoch, step, rows), rate, started, figures)
        if not self.monitor.delay:
            self.monitor.check(taken)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        at = self.progress
        at.step += 1
        at.epoch, at.step_in_epoch = (epoch, step + 1) if step + 1 < len(self.epochs[epoch]) else (epoch + 1, 0)
        return self.monitor.add(taken)

    def _batches(self, epoch: int, step: int, rows: Array) -> list[dict[str, torch.Tensor]]:
        """This rank's micro-batches of a step, on the CPU. An empty one holds row 0 with the weight 0."""
        cuts = share(self.job.train.lengths, rows, self.group.world_size, self.prepared.memory_plan.micro_tokens)[
            self.group.rank
        ]
        rng = np.random.default_rng([self.job.seed, epoch, step, self.group.rank])
        made = []
        for cut in cuts:
            batch = self.task.inputs(self.job.train.batch(cut if len(cut) else rows[:1], self.pad), rng)
            made.append({**batch, "weight": torch.tensor(self.task.weight(batch) if len(cut) else 0.0)})
        return made

    def _total(self, rows: Array, batches: list[dict[str, torch.Tensor]]) -> float:
        """Terms of the loss in this step, over all ranks."""
        mine = sum(float(batch["weight"]) for batch in batches)
        return max(mine if self.group.world_size == 1 else self.group.sum(mine)[0], 1.0)

    def _backward(self, batches: list[dict[str, torch.Tensor]], total: float) -> torch.Tensor:
        """Gradients of the mean loss over the terms of all ranks; returns this rank's share of that mean."""
        loss = torch.zeros((), device=self.group.device)
        for n, batch in enumerate(batches):
            weight = float(batch.pop("weight"))
            moved = {name: value.to(self.group.device, non_blocking=True) for name, value in batch.items()}
            with self.group.syncing(self.wrapped, last=n == len(batches) - 1):
                with torch.autocast(self.group.device.type, torch.bfloat16, enabled=self.bf16):
                    outputs = forward(self.task, self.wrapped, moved)
                    part = self.task.loss(outputs, moved) * (float(weight > 0) / total)
                # Ranks average their gradients; times their number it is the mean over terms, as one would have it.
                (part * self.group.world_size).backward()
            loss += part.detach()
        return loss

    def _evaluation_due(self) -> bool:
        if self.params.evaluate_every:
            return self.progress.step % self.params.evaluate_every == 0
        return self.progress.step_in_epoch == 0

    def predict(self, rows: TokenDataset) -> Array:
        """What the task records of every row, float32 [N, outputs], in the rows' order."""
        budget = max(self.prepared.memory_plan.micro_tokens, int(rows.lengths.max(initial=1)))
        return evaluate(self.task, self.model, rows, self.group, budget, self.pad, self.bf16)

    def validate(self) -> Metrics:
        """The figures on the validation part, as the weights are now. Raises DataError where they are no numbers."""
        recorded = self.predict(self.job.valid)
        nonfinite.check_predictions(recorded, self.progress.step, self.job.scratch)
        return self.task.metrics(self.job.valid.targets, self.task.decode(recorded))

    def _evaluate(self) -> None:
        """Look at the validation part; keep the weights when they are the best so far."""
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
        """Write a checkpoint, `last` or `best`, and the best weights that it refers to."""
        if self.job.scratch is None:
            return
        if name == "last":
            self.best.write(self.job.scratch / "best", self.progress.best_step)
        else:
            self.best.written = self.progress.step
        made = checkpoints.snapshot(self.model, self.optimizer, self.group.is_rank_zero)
        if self.group.is_rank_zero:
            state = {**asdict(self.progress), "execution": asdict(self.execution)}
            checkpoints.save(self.job.scratch / name, self.progress.step, made, state)

    def _restore(self) -> None:
        """Go to the checkpoint that the run starts from, with the best weights until then."""
        self.wrapped.train()
        if self.group.is_rank_zero:
            resuming.drop_newer(self.job.scratch, self.start, self.job.log)
        if self.start is None:
            return
        if self.start.best is not None:
            self.best.load(self.start.best)
        state = checkpoints.load(self.start.at, self.model, self.optimizer)
        self.progress = Progress(**{k: v for k, v in state.items() if k in Progress.__dataclass_fields__})
