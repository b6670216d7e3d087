"""The processes that train one model together: who they are, how weights and sums are shared among them.

One process needs none of it. Several use DistributedDataParallel (every process holds the model) or, for a model that
does not fit one device, FSDP2 (every process holds a slice of every layer); gloo on CPU and nccl on GPU, as Ray Train
has set them up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


class ProcessGroup:
    """This process's place among those that train. shard: slice the model over them (FSDP2)."""

    def __init__(self, shard: bool = False) -> None:
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world_size = dist.get_world_size() if dist.is_initialized() else 1
        self.is_rank_zero = self.rank == 0
        self.shard = shard and self.world_size > 1
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The module to call in training; `model` itself keeps the weights."""
        if self.world_size == 1:
            return model
        if self.shard:
            return _sharded(model)
        from torch.nn.parallel import DistributedDataParallel

        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    def syncing(self, wrapped: torch.nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients travel between the processes with the last micro-batch of a step only."""
        if self.world_size == 1:
            return contextlib.nullcontext()
        if self.shard:
            wrapped.set_requires_gradient_sync(last)
            return contextlib.nullcontext()
        return contextlib.nullcontext() if last else wrapped.no_sync()

    def sum(self, *values: float | torch.Tensor) -> list[float]:
        """Each value summed over the processes."""
        return self.sum_async(*values)()

    def sum_async(self, *values: float | torch.Tensor) -> Callable[[], list[float]]:
        """As `sums`, once the answer is called: until then a GPU is not waited for."""
        wide = [_local(v).float() if isinstance(v, torch.Tensor) else torch.tensor(float(v)) for v in values]
        together = torch.stack([v.to(self.device, non_blocking=True) for v in wide])
        if self.world_size > 1:
            dist.all_reduce(together)
        if self.device.type == "cpu":
            return lambda: [float(value) for value in together.tolist()]
        fetched = torch.empty(together.shape, pin_memory=True).copy_(together, non_blocking=True)
        there = torch.cuda.Event()
        there.record()

        def wait() -> list[float]:
            there.synchronize()
            return [float(value) for value in fetched.tolist()]

        return wait

    def sum_tensor(self, array: torch.Tensor) -> torch.Tensor:
        """A CPU tensor summed over the processes."""
        if self.world_size == 1:
            return array
        moved = array.to(self.device)
        dist.all_reduce(moved)
        return moved.cpu()


def _sharded(model: torch.nn.Module) -> torch.nn.Module:
    """Every layer of the stack is a unit that is gathered when it is used, and freed after."""
    from torch.distributed.fsdp import fully_shard

    stacks = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    for layer in stacks[0] if stacks else ():
        fully_shard(layer)
    return fully_shard(model)


def _local(number: torch.Tensor) -> torch.Tensor:
    """A number as this process has it; that of a sharded model is the same on all."""
    return number.detach().full_tensor() if hasattr(number, "full_tensor") else number.detach()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with its slices gathered, on the CPU; every process has to call it."""
    gathered = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered.detach().contiguous().cpu()


def shard_like(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A whole tensor cut into the slices that `weight` has; itself for a weight that has none."""
    mesh = getattr(weight, "device_mesh", None)
    if mesh is None:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(weight.device), mesh, weight.placements)
