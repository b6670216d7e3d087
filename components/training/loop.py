"""The one training loop: `finetune` runs it whole, `tune` runs short ones of it, one process or many.

Its course depends on the settings, the rows, the seed, the number of workers and the thread count alone; a run that
is killed and resumed from a checkpoint ends in the same weights, bit for bit, on the CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from components.core.errors import DataError
from components.tasks import Task, merit
from components.training import checkpoints
from components.training.optimising import freeze, groups, has_bf16
from components.training.packing import plan_epoch, plan_inference
from components.training.params import FinetuneParams
from components.training.rows import Rows

Metrics = dict[str, float]


@dataclass
class Progress:
    """Where a run stands; written into every checkpoint."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_metrics: Metrics = field(default_factory=dict)
    worse: int = 0
    """Evaluations since the best one."""
    stopped: bool = False


@dataclass
class Job:
    """One training. `on_step(step, steps, figures)` after each step, `on_evaluation(step, metrics)` after each look
    at the validation part; both on rank 0 only."""

    task: Task
    labels: tuple[str, ...]
    folder: Path
    """The base model."""
    train: Rows
    valid: Rows
    params: FinetuneParams
    seed: int
    threads: int
    scratch: Path | None = None
    """Where checkpoints go; None keeps none."""
    on_step: Callable[[int, int, Metrics], None] = lambda step, steps, figures: None
    on_evaluation: Callable[[int, Metrics], None] = lambda step, metrics: None


class Training:
    """A model being trained. `run` goes from the last checkpoint, or the start, to the end."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.params = job.params
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.ranks = dist.get_world_size() if dist.is_initialized() else 1
        torch.set_num_threads(job.threads)
        torch.manual_seed(job.seed)
        self.device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else _CPU
        self.model = job.task.build(str(job.folder), job.labels, self.params.dropout).to(self.device)
        freeze(self.model, self.params.frozen_layers)
        self.wrapped = self._wrap()
        self.pad = int(self.model.config.pad_token_id or 0)
        self.optimizer = torch.optim.AdamW(groups(self.model, self.params), lr=self.params.lr, fused=True)
        self.epochs = [self._plan(epoch) for epoch in range(self.params.epochs)]
        self.steps = sum(len(plan) for plan in self.epochs)
        self.progress = Progress()
        self.bf16 = self.params.precision == "bf16" or (self.params.precision == "auto" and has_bf16())
        self._saved = time.monotonic()

    def run(self) -> Metrics:
        """Train to the end or to an early stop. Returns the best validation metrics; the model holds those weights."""
        self._restore()
        for epoch, step, batches in self._remaining():
            self._step(epoch, step, batches)
            if self._evaluation_due():
                self._evaluate()
            if self.progress.stopped:
                break
            self._save_if_due()
        if self.progress.best == -math.inf or (self.progress.step == self.steps and not self._evaluation_due()):
            self._evaluate()
        self._load_best()
        return self.progress.best_metrics

    def _plan(self, epoch: int) -> list[list[np.ndarray[Any, Any]]]:
        return plan_epoch(self.job.train.lengths, self.params.batch_tokens, self.job.seed, epoch, self.ranks)

    def _wrap(self) -> torch.nn.Module:
        if self.ranks == 1:
            return self.model
        from ray.train.torch import prepare_model

        return prepare_model(self.model, move_to_device=False)

    def _remaining(self) -> Iterator[tuple[int, int, list[np.ndarray[Any, Any]]]]:
        """Every step that is still to be done, from where the progress stands."""
        first = self.progress.epoch, self.progress.step_in_epoch
        for epoch, plan in enumerate(self.epochs):
            for step, batches in enumerate(plan):
                if (epoch, step) >= first and not self.progress.stopped:
                    yield epoch, step, batches

    def _step(self, epoch: int, step: int, batches: list[np.ndarray[Any, Any]]) -> None:
        started = time.perf_counter()
        rate = self._set_lr()
        rows, total = batches[self.rank], sum(len(b) for b in batches)
        loss = self._backward(rows, total)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.params.clip)
        value = loss.item()
        if not math.isfinite(value):
            raise DataError(
                f"the loss became {value} in epoch {epoch + 1}, step {step + 1}",
                fix="lower finetune.lr; the run kept its last good checkpoint",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        at = self.progress
        at.step += 1
        at.epoch, at.step_in_epoch = (epoch, step + 1) if step + 1 < len(self.epochs[epoch]) else (epoch + 1, 0)
        if self.rank == 0:
            speed = total / (time.perf_counter() - started)
            figures = {"loss": value, "lr": rate, "grad_norm": float(norm), "rows_per_second": speed}
            self.job.on_step(at.step, self.steps, figures)

    def _backward(self, rows: np.ndarray[Any, Any], total: int) -> torch.Tensor:
        """Gradients of the mean loss over the rows of all ranks; returns that mean (a rank without rows adds 0)."""
        some = rows if len(rows) else np.zeros(1, dtype=np.int64)
        batch = {k: v.to(self.device) for k, v in self.job.train.batch(some, self.pad).items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.wrapped(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            # DDP averages over ranks; weighing by rows makes it the mean over rows, as one worker would have it.
            share = self.job.task.loss(logits, batch["targets"]) * (len(rows) / total)
        (share * self.ranks).backward()
        loss: torch.Tensor = share.detach()
        if self.ranks > 1:
            dist.all_reduce(loss)
        return loss

    def _set_lr(self) -> float:
        """Straight up over the warm-up, straight down to 0 after it. Returns the encoder's rate."""
        step, warm = self.progress.step, max(1, round(self.params.warmup * self.steps))
        scale = min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * scale
        return self.params.lr * scale

    def _evaluation_due(self) -> bool:
        if self.params.evaluate_every:
            return self.progress.step % self.params.evaluate_every == 0
        return self.progress.step_in_epoch == 0

    def _evaluate(self) -> None:
        """Look at the validation part; keep the weights when they are the best so far."""
        logits = self.predict(self.job.valid)
        decoded = self.job.task.decode(logits)
        metrics = self.job.task.metrics(self.job.valid.targets, decoded, self.job.labels)
        at, score = self.progress, merit(self.params.metric, metrics)
        if self.rank == 0:
            self.job.on_evaluation(at.step, metrics)
        if score > at.best:
            at.best, at.best_metrics, at.worse = score, metrics, 0
            self._keep_best()
        else:
            at.worse += 1
            at.stopped = bool(self.params.patience) and at.worse >= self.params.patience

    def predict(self, rows: Rows) -> np.ndarray[Any, Any]:
        """Logits float32 [N, K] of every row, in the rows' order."""
        self.model.eval()
        found = np.zeros((len(rows), len(self.job.labels)), dtype=np.float32)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            for chosen in plan_inference(rows.lengths, self.params.batch_tokens):
                batch = {k: v.to(self.device) for k, v in rows.batch(chosen, self.pad).items() if k != "targets"}
                found[chosen] = self.model(**batch).logits.float().cpu().numpy()
        self.model.train()
        return found

    def _keep_best(self) -> None:
        # In memory for one that keeps no checkpoints; on disk, a checkpoint of its own, for one that does.
        self._best = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}
        if self.job.scratch is not None and self.rank == 0:
            checkpoints.save(self.job.scratch / "best", self.progress.step, self.model, self.optimizer, self._state())

    def _load_best(self) -> None:
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if name in self._best:
                    weight.copy_(self._best[name])

    def _state(self) -> dict[str, Any]:
        return {**asdict(self.progress), "threads": self.job.threads, "ranks": self.ranks, "seed": self.job.seed}

    def _save_if_due(self) -> None:
        if self.job.scratch is None or time.monotonic() - self._saved < self.params.checkpoint_seconds:
            return
        if self.rank == 0:
            checkpoints.save(self.job.scratch / "last", self.progress.step, self.model, self.optimizer, self._state())
        self._saved = time.monotonic()

    def _restore(self) -> None:
        """Go to the newest whole checkpoint, be it a regular one or that of the best weights."""
        self.model.train()
        if self.job.scratch is None:
            return
        last, best = (checkpoints.latest(self.job.scratch / name) for name in ("last", "best"))
        if best is not None:
            checkpoints.load(best, self.model, self.optimizer)
            self._best = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}
        found = max((path for path in (last, best) if path is not None), key=lambda path: path.name, default=None)
        if found is not None:
            state = checkpoints.load(found, self.model, self.optimizer)
            self.progress = Progress(**{k: v for k, v in state.items() if k in Progress.__dataclass_fields__})


_CPU = torch.device("cpu")
