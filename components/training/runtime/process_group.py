"""Process group of a training: rank and world size, model wrapping, reductions.

A single process needs none of it. Several use DistributedDataParallel (every process has the model) or, for a model
that does not fit one device, FSDP2 (every process has a shard of every layer); with gloo on CPU and nccl on GPU, as set
up by Ray Train.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


class ProcessGroup:
    """Rank of this process among those that train. shard: split the model over them (FSDP2)."""

    def __init__(self, shard: bool = False) -> None:
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world_size = dist.get_world_size() if dist.is_initialized() else 1
        self.is_rank_zero = self.rank == 0
        self.shard = shard and self.world_size > 1
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Wrap the model for training; the wrapped module is to be called, `model` keeps the weights."""
        if self.world_size == 1:
            return model
        if self.shard:
            return _sharded(model)
        from torch.nn.parallel import DistributedDataParallel

        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    def syncing(self, wrapped: torch.nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Reduce gradients only with the last micro-batch of a step."""
        if self.world_size == 1:
            return contextlib.nullcontext()
        if self.shard:
            wrapped.set_requires_gradient_sync(last)
            return contextlib.nullcontext()
        return contextlib.nullcontext() if last else wrapped.no_sync()

    def sum(self, *values: float | torch.Tensor) -> list[float]:
        """Sum each value over the processes."""
        return self.sum_async(*values)()

    def sum_async(self, *values: float | torch.Tensor) -> Callable[[], list[float]]:
        """Start the sum; the returned function waits for it. Until then the host does not wait for a GPU."""
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
        """Sum a CPU tensor over the processes."""
        if self.world_size == 1:
            return array
        moved = array.to(self.device)
        dist.all_reduce(moved)
        return moved.cpu()


def _sharded(model: torch.nn.Module) -> torch.nn.Module:
    """Shard every layer, gathered for its use and freed afterwards."""
    from torch.distributed.fsdp import fully_shard

    stacks = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    for layer in stacks[0] if stacks else ():
        fully_shard(layer)
    return fully_shard(model)


def _local(number: torch.Tensor) -> torch.Tensor:
    """Return a scalar as a local tensor; that of a sharded model is the same on all ranks."""
    return number.detach().full_tensor() if hasattr(number, "full_tensor") else number.detach()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a tensor's shards on the CPU; every process has to call it."""
    gathered = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered.detach().contiguous().cpu()


def shard_like(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Shard a full tensor as `weight` is sharded; return it unchanged for a weight that is not."""
    mesh = getattr(weight, "device_mesh", None)
    if mesh is None:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(weight.device), mesh, weight.placements)
