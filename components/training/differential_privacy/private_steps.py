"""Steps of DP-SGD in the training loop (Abadi et al., Deep Learning with Differential Privacy, 2016).

A step draws units by chance, clips the gradient of each, adds noise to their sum and divides by the expected number:
the optimizer sees nothing else of the rows. All ranks draw the same units and the same noise, and each computes its
share of the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.training.differential_privacy.row_gradients import RowGradients
from raypath.components.training.differential_privacy.secret_random import KEY_BYTES, SecretRandom, load_key
from raypath.components.training.differential_privacy.units import PoissonPlan, Units
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.model_setup import PreparedModel
from raypath.components.training.loop.validate import forward
from raypath.components.training.runtime.process_group import ProcessGroup

MOST_NUMBERS = 1 << 25
"""Numbers of the gradients of a layer by row that are in memory at a time: 128 MiB."""


class PrivateSteps:
    """Draw, gradients and noise of one training, as `task.metadata.privacy` plans them."""

    def __init__(self, job: TrainingJob, prepared: PreparedModel, group: ProcessGroup) -> None:
        record = job.task.metadata.privacy
        assert record is not None
        self.job, self.prepared, self.group = job, prepared, group
        self.event, self.clip = record.events[-1], record.clip
        self.units = Units.rows(len(job.train)) if job.units is None else job.units
        self.by_row = len(self.units) == len(job.train)
        self.expected = self.event.sampling_rate * len(self.units)
        self.gradients = RowGradients(prepared.model)
        self.weights = list(prepared.trained().values())
        largest = max(weight.numel() for weight in self.weights)
        self.most_rows = max(1, MOST_NUMBERS // largest)
        # A row of features is one vector, whatever its text was.
        self.lengths = np.ones(len(job.train), np.int64) if job.train.has_features else job.train.lengths
        self.pad = int(getattr(prepared.model.config, "pad_token_id", None) or 0)
        self.random = SecretRandom(_shared_key(job, group))

    def plan(self, rows: object, budget: int, seed: int, epoch: int) -> PoissonPlan:
        """Plan an epoch: its share of the steps. Sampling depends neither on the seed nor on a budget of tokens."""
        steps, epochs = self.event.steps, self.job.params.epochs
        first, end = (steps * number // epochs for number in (epoch, epoch + 1))
        return PoissonPlan(self.units, self.random, self.event.sampling_rate, first, end)

    def backward(self, step: int, rows: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Set the gradients of a step: noise and clipped gradients, by the expected number of units.

        Returns 0 in place of the loss, which would reveal the rows, and the norm of the noisy gradients.
        """
        sums = {weight: torch.zeros_like(weight, dtype=torch.float32) for weight in self.weights}
        for chosen in self._micro_batches(rows):
            for weight, found in self._clipped(step, chosen).items():
                sums[weight] += found
        flat = torch.cat([sums[weight].flatten() for weight in self.weights])
        if self.group.world_size > 1:
            flat = self.group.sum_tensor(flat.cpu()).to(self.group.device)
        noise = torch.from_numpy(self.random.noise(step, len(flat)) * (self.clip * self.event.noise_multiplier))
        flat = (flat.double() + noise.to(flat.device)).div(self.expected).float()
        for weight, part in zip(self.weights, flat.split([w.numel() for w in self.weights]), strict=True):
            weight.grad = part.view_as(weight).to(weight.dtype)
        return torch.zeros((), device=self.group.device), flat.norm()

    def _micro_batches(self, rows: Array) -> Iterator[Array]:
        """Yield the rows of this rank, units as a whole: up to the tokens of a micro-batch, or one unit."""
        units = self.units.of_row[rows]
        mine = np.isin(units, np.unique(units)[self.group.rank :: self.group.world_size])
        rows, units = rows[mine], units[mine]
        order = np.lexsort((units, -self.lengths[rows])) if self.by_row else np.arange(len(rows))
        rows, units = rows[order], units[order]
        starts = np.flatnonzero(np.r_[True, units[1:] != units[:-1]]) if len(rows) else rows
        ends = np.r_[starts[1:], len(rows)].astype(np.int64)
        most, begin, longest = self.prepared.memory_plan.micro_tokens, 0, 0
        for start, end in zip(starts.tolist(), ends.tolist(), strict=False):
            longest = max(longest, int(self.lengths[rows[start:end]].max()))
            if start > begin and (longest * (end - begin) > most or end - begin > self.most_rows):
                yield rows[begin:start]
                begin, longest = start, int(self.lengths[rows[start:end]].max())
        if begin < len(rows):
            yield rows[begin:]

    def _clipped(self, step: int, rows: Array) -> dict[torch.nn.Parameter, torch.Tensor]:
        """Return the sum of the clipped gradients of the units that some rows belong to."""
        task, device = self.job.task, self.group.device
        batch = task.inputs(self.job.train.batch(rows, self.pad), np.random.default_rng([self.job.seed, step]))
        moved = {name: value.to(device) for name, value in batch.items()}
        _, units = np.unique(self.units.of_row[rows], return_inverse=True)
        self.gradients.start(len(rows))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.prepared.bf16):
            loss = task.loss(forward(task, self.prepared.module, moved), moved)
        loss.backward()
        for weight in self.weights:
            weight.grad = None  # of the rows, neither clipped nor noisy
        return self.gradients.clipped_sums(torch.from_numpy(units).to(device), int(units.max()) + 1, self.clip)


def private_steps(job: TrainingJob, prepared: PreparedModel, group: ProcessGroup) -> PrivateSteps | None:
    """Return the steps of a private training; None without `params.privacy`. Raises DataError for rows in windows."""
    if not job.params.privacy.enabled:
        return None
    if int(job.train.blocks.sizes.sum()) > job.train.blocks.window:
        what = "a private training draws its rows at random from all, and these do not fit in memory"
        raise DataError(what, fix="give fewer rows, or a shorter preprocess.max_length")
    return PrivateSteps(job, prepared, group)


def _shared_key(job: TrainingJob, group: ProcessGroup) -> bytes:
    """Return the key of rank 0, on every rank."""
    mine = list(load_key(job.scratch)) if group.is_rank_zero else [0] * KEY_BYTES
    return bytes(round(value) for value in group.sum(*mine)) if group.world_size > 1 else bytes(mine)
