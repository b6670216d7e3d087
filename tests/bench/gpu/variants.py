"""Variants of a training step: what is compiled, how batches are shaped, what is captured as a CUDA graph.

A step of each is forward, backward, clipping and AdamW, in bf16 where the device has it, as `finetune` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from raypath.components.models.bf16 import supports_bf16
from raypath.components.models.encoders.fast_bert import fuse_qkv, read_first_token_only
from tests.bench.gpu import batches
from tests.bench.gpu.batches import FILLER, Batch
from tests.bench.gpu.packed import PackedClassifier
from tests.bench.gpu.shapes import Rows, Shape

LR, CLIP = 1e-4, 1.0


@dataclass(frozen=True)
class Variant:
    """What a step does differently. dynamic: compiled for any shape; graph: the whole step is a CUDA graph."""

    batches: Callable[[Shape, Rows], Iterator[Batch]] = batches.any_shape
    packed: bool = False
    compiled: bool = False
    dynamic: bool = False
    fused: bool = True
    graph: bool = False


VARIANTS = {
    "eager": Variant(),
    "eager, AdamW not fused": Variant(fused=False),
    "compiled for any shape": Variant(compiled=True, dynamic=True),
    "few shapes": Variant(batches.few_shapes),
    "few shapes, compiled": Variant(batches.few_shapes, compiled=True),
    "packed": Variant(batches.packed, packed=True),
    "packed, graph": Variant(batches.packed, packed=True, graph=True),
    "packed, compiled": Variant(batches.packed, packed=True, compiled=True),
    "packed, compiled, graph": Variant(batches.packed, packed=True, compiled=True, graph=True),
}
"""By name; `eager` is the step of today's training loop."""


class Stepper:
    """A model with its optimizer. `step` trains on one batch; graphs are captured at the first step of a shape."""

    def __init__(self, variant: Variant, model: Any, device: str) -> None:
        self.variant, self.device = variant, device
        self.bf16 = supports_bf16(device)
        self.model = model.to(device).train()
        if not variant.packed:
            read_first_token_only(self.model)
            fuse_qkv(self.model)
        module = PackedClassifier(self.model, FILLER) if variant.packed else self.model
        # On a CPU the traced graph is run as it is: this form shows that it can be traced, not how fast it is.
        backend = "inductor" if device == "cuda" else "aot_eager"
        self.call = torch.compile(module, dynamic=variant.dynamic, backend=backend) if variant.compiled else module
        self.graph = variant.graph and device == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LR, fused=variant.fused, foreach=not variant.fused, capturable=self.graph
        )
        self._captured: tuple[torch.cuda.CUDAGraph, dict[str, torch.Tensor], torch.Tensor] | None = None

    def step(self, batch: Batch) -> torch.Tensor:
        """Update the weights once; return the loss, a tensor on the device."""
        if not self.graph:
            return self._train(batch.to(self.device))
        if self._captured is None:
            self._captured = self._capture(batch.to(self.device))
        graph, places, loss = self._captured
        for name, place in places.items():
            place.copy_(batch.tensors[name], non_blocking=True)
        graph.replay()
        return loss

    def loss(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean loss of the rows that are no padding."""
        given = {name: tensor for name, tensor in tensors.items() if name not in ("targets", "weights")}
        # A graph may not hold casts of the weights that were cached before it was captured.
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16, cache_enabled=not self.graph):
            found = self.call(**given)
        logits = (found if self.variant.packed else found.logits).float()
        weights = tensors["weights"]
        losses = torch.nn.functional.cross_entropy(logits, tensors["targets"], reduction="none")
        return (losses * weights).sum() / weights.sum()

    def _train(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=not self.graph)
        loss = self.loss(tensors)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss.detach()

    def _capture(self, places: dict[str, torch.Tensor]) -> Any:
        """Capture a whole step; the steps that warm up and the capture leave the weights as they were."""
        kept = [weight.detach().clone() for weight in self.model.parameters()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._train(places)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._train(places)
        with torch.no_grad():
            for weight, before in zip(self.model.parameters(), kept, strict=True):
                weight.copy_(before)
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()
        return graph, places, loss
