"""Clipped gradients by row against one backward pass for each row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raypath.components.core.errors import ParamsError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.differential_privacy.row_gradients import RowGradients
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import start_training
from raypath.components.training.params import ResolvedParams
from tests.tiny import LABELS, rows

Loss = Callable[[Any], torch.Tensor]


def _brute(weights: list[nn.Parameter], loss: Loss, units: list[list[int]], clip: float) -> list[torch.Tensor]:
    """Sum the clipped gradients, a backward pass for each unit. loss: of some rows."""
    sums = [torch.zeros_like(weight) for weight in weights]
    for unit in units:
        found = torch.autograd.grad(loss(unit), weights)
        norm = torch.cat([each.flatten() for each in found]).norm()
        for total, each in zip(sums, found, strict=True):
            total += each * min(1.0, clip / float(norm))
    return sums


class _Shared(nn.Module):
    """A layer used twice, one with a row's tokens, and one without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.again = nn.Linear(6, 6), nn.Linear(6, 6)
        self.up = nn.Linear(6, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(torch.tanh(self.again(torch.tanh(self.again(self.down(x))))).mean(dim=1))


@pytest.mark.parametrize("clip", [0.05, 0.5, 100.0])
@pytest.mark.parametrize("grouped", [False, True])
def test_they_are_those_of_one_row_at_a_time(clip: float, grouped: bool) -> None:
    torch.manual_seed(0)
    model, x, y = _Shared(), torch.randn(7, 4, 6), torch.arange(7) % 3
    recorder = RowGradients(model)
    units = torch.tensor([0, 1, 1, 2, 2, 2, 3]) if grouped else torch.arange(7)

    def loss(chosen: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x[chosen]), y[chosen], reduction="sum")

    count = int(units.max()) + 1
    recorder.start(7)
    loss(slice(None)).backward()
    found = recorder.clipped_sums(units, count, clip)
    weights = list(model.parameters())
    wanted = _brute(weights, loss, [torch.where(units == n)[0].tolist() for n in range(count)], clip)
    for weight, exact in zip(weights, wanted, strict=True):
        torch.testing.assert_close(found[weight], exact, rtol=1e-4, atol=1e-6)


def test_a_row_moves_the_sum_by_the_clipping_norm_at_most_and_an_infinite_one_not_at_all() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(5, 2), torch.randn(6, 5) * 1e3
    x[4] = torch.inf
    recorder = RowGradients(model)

    def total(chosen: slice) -> torch.Tensor:
        count = len(x[chosen])
        recorder.start(count)
        model(x[chosen]).square().sum().backward()
        return torch.cat([part.flatten() for part in recorder.clipped_sums(torch.arange(count), count, 0.7).values()])

    assert (total(slice(0, 4)) - total(slice(0, 3))).norm() <= 0.7 * (1 + 1e-5)
    assert torch.equal(total(slice(0, 5)), total(slice(0, 4)))


@pytest.mark.parametrize("method", ["head", "lora"])
def test_a_step_of_a_model_is_its_clipped_rows_and_noise(base: Path, method: str) -> None:
    """The whole way through the loop: brute force over rows, with the noise that the key gives."""
    from raypath.components.training.differential_privacy.budget import plan

    data, more = rows(24), {"privacy.noise_multiplier": 1e-6, "privacy.batch_rows": 12, "privacy.clip": 0.3}
    if method == "head":
        data = type(data)(**{**vars(data), "features": np.random.default_rng(0).normal(size=(24, 32)).astype("f4")})
    changes = more | ({"method": "head"} if method == "head" else {"lora": 2, "micro_tokens": 64})
    params = ResolvedParams(precision="fp32", memory="full", frozen_layers=0).override(changes)
    record = plan(params.override({"privacy.noise_multiplier": 1.0}), 24)
    event = record.events[-1].model_copy(update={"noise_multiplier": 1e-6})
    metadata = ModelMetadata(
        task="text_classification",
        labels=LABELS,
        max_length=64,
        privacy=record.model_copy(update={"events": (event,)}),
    )
    training = start_training(TrainingJob(load_task(metadata), base, data, data, params, 3, 1))
    private = training.private
    assert private is not None
    if method == "lora":
        for name, weight in training.prepared.trained().items():
            weight.data.normal_(std=0.3) if "lora_B" in name else None  # zeros would leave lora_A without gradients
    chosen = training.epochs[0][0]
    private.backward(0, chosen)
    found = [weight.grad.clone() for weight in private.weights if weight.grad is not None]

    def loss(row: list[int]) -> torch.Tensor:
        from raypath.components.training.loop.validate import forward

        batch = training.task.inputs(data.batch(chosen[row], 0), np.random.default_rng(0))
        return training.task.loss(forward(training.task, training.model, batch), batch)

    wanted = _brute(private.weights, loss, [[n] for n in range(len(chosen))], 0.3)
    assert len(chosen) > 2
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other / 12, rtol=1e-3, atol=1e-5)


def test_other_layers_are_rejected() -> None:
    with pytest.raises(ParamsError, match="linear layers; 1 is another"):
        RowGradients(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    recorder = RowGradients(model := nn.Linear(3, 3))
    recorder.start(4)
    with pytest.raises(ParamsError, match="mixes rows"):
        model(torch.ones(2, 3)).sum().backward()
