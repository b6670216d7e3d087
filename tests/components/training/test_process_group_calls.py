"""Calls of one process of a group, with torch.distributed replaced; several real ones: test_process_group.py."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import start_training
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime import process_group
from raypath.components.training.runtime.process_group import ProcessGroup, full_tensor, shard_like
from tests.tiny import LABELS, rows


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """This process is the second of two, which hold the same numbers; what is reduced is recorded."""
    reduced: list[Any] = []

    def all_reduce(tensor: torch.Tensor) -> None:
        reduced.append(tensor.tolist())
        tensor.mul_(2)

    distributed = {
        "is_initialized": lambda: True,
        "get_rank": lambda: 1,
        "get_world_size": lambda: 2,
        "all_reduce": all_reduce,
    }
    monkeypatch.setattr(process_group, "dist", SimpleNamespace(**distributed))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return reduced


def test_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    group, model = ProcessGroup(shard=True), torch.nn.Linear(1, 1)
    assert (group.rank, group.world_size, group.is_rank_zero, group.shard) == (0, 1, True, False)
    assert group.device.type == "cpu"
    assert group.wrap(model) is model
    for last in (True, False):
        with group.syncing(model, last) as found:
            assert found is None
    assert group.sum(1, torch.tensor(2.5)) == [1.0, 2.5]
    assert group.sum_async(torch.tensor(3, dtype=torch.bfloat16))() == [3.0]
    tensor = torch.ones(2)
    assert group.sum_tensor(tensor) is tensor


def test_one_of_two_processes(two: list[Any]) -> None:
    group = ProcessGroup()
    assert (group.rank, group.world_size, group.is_rank_zero, group.shard) == (1, 2, False, False)
    assert group.sum(1, torch.tensor(2.5)) == [2.0, 5.0]
    assert group.sum_tensor(torch.ones(2)).tolist() == [2.0, 2.0]
    assert two == [[1.0, 2.5], [1.0, 1.0]]
    waiting = contextlib.nullcontext()
    wrapped: Any = SimpleNamespace(no_sync=lambda: waiting)
    assert group.syncing(wrapped, last=False) is waiting
    assert group.syncing(wrapped, last=True) is not waiting


def test_a_sharded_model_reduces_with_the_last_batch(two: list[Any]) -> None:
    group, flags = ProcessGroup(shard=True), []
    assert group.shard
    wrapped: Any = SimpleNamespace(set_requires_gradient_sync=flags.append)
    for last in (False, True):
        with group.syncing(wrapped, last):
            pass
    assert flags == [False, True]


def test_a_model_of_two_processes_is_wrapped(two: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        "torch.nn.parallel.DistributedDataParallel", lambda *given, **named: made.append((given, named))
    )
    sharded: list[Any] = []
    monkeypatch.setattr("torch.distributed.fsdp.fully_shard", lambda module: sharded.append(module) or module)
    layers = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)])
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), layers)
    ProcessGroup().wrap(model)
    assert made == [((model,), {"device_ids": None, "gradient_as_bucket_view": True})]
    assert ProcessGroup(shard=True).wrap(model) is model
    assert sharded == [*layers, model]
    sharded.clear()
    plain = torch.nn.Linear(1, 1)
    ProcessGroup(shard=True).wrap(plain)
    assert sharded == [plain]


def test_shards_are_gathered_and_made(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.ones(2, 3, requires_grad=True).T
    found = full_tensor(SimpleNamespace(full_tensor=lambda: whole))  # type: ignore[arg-type]
    assert found.is_contiguous()
    assert not found.requires_grad
    assert full_tensor(whole).shape == (3, 2)
    given: list[Any] = []

    def distribute(*arguments: Any) -> str:
        given.append(arguments[1:])
        return "shards"

    monkeypatch.setattr("torch.distributed.tensor.distribute_tensor", distribute)
    assert shard_like(whole, torch.ones(1)) is whole
    weight: Any = SimpleNamespace(device_mesh="mesh", device="cpu", placements="places")
    assert shard_like(whole, weight) == "shards"
    assert given == [("mesh", "places")]
    number: Any = SimpleNamespace(full_tensor=lambda: torch.tensor(2.0))
    number.detach = lambda: number
    assert process_group._local(number) == 2.0


def test_gradients_are_reduced_with_the_last_micro_batch_of_a_step(base: Path) -> None:
    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    params = ResolvedParams(epochs=1, batch_tokens=512, micro_tokens=64, memory="full")
    training = start_training(TrainingJob(task, base, rows(40), rows(8, seed=1), params, seed=3, threads=1))
    assert training.prepared.memory_plan.micro_tokens == 64
    flags: list[bool] = []

    def syncing(wrapped: Any, last: bool) -> Any:
        assert wrapped is training.wrapped
        flags.append(last)
        return contextlib.nullcontext()

    training.group.syncing = syncing  # type: ignore[method-assign]
    batches = training._batches(0, 0, training.epochs[0][0])
    count = len(batches)
    assert count > 2
    training._backward(batches, training._total(batches))
    assert flags == [False] * (count - 1) + [True]
