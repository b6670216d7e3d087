"""Checks of decoders on a device: `python -m tests.bench.gpu.decoders.checks SHAPE DEVICE FOLDER OUT`.

Each compares with the CPU or with another path, and writes what it found to OUT as it ends: a value and the most that
it may be. FOLDER is a base by base.py.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raypath.components.models.adapters import base_identity, open_model
from raypath.components.models.decoder.packed_batch import packed_rows
from raypath.components.models.decoder.packed_decoder import PackedDecoder
from raypath.components.models.metadata import write_metadata
from raypath.components.models.process import configure_process
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.runtime import process_group
from tests.bench.gpu.decoders.base import SHAPES, Shape, job_of, make_rows

STEPS = 8


class Skip(Exception):
    """Something that a check needs is not installed."""


class Checks:
    """Checks on one device; each returns a value and the most that it may be."""

    def __init__(self, shape: Shape, device: str, folder: Path) -> None:
        self.shape, self.device, self.folder = shape, device, folder
        self.batch = packed_rows(make_rows(shape, shape.tokens, seed=2))

    def attention_in_fp32(self) -> tuple[float, float]:
        """Gradients of a packed batch in float32, against the CPU; relative to their norm."""
        return _distance(self._gradients(self.device, False), self._gradients("cpu", False)), 1e-4

    def attention_in_bf16(self) -> tuple[float, float]:
        """Gradients in bfloat16, on a GPU by flash attention over rows of any length, against float32 on the CPU."""
        return _distance(self._gradients(self.device, True), self._gradients("cpu", False)), 0.05

    def sliding_window(self) -> tuple[float, float]:
        """Log-probabilities with a window in bfloat16, against float32 on the CPU; the mean difference in nats."""
        found, wanted = (self._scores(device, bf16, 16) for device, bf16 in ((self.device, True), ("cpu", False)))
        other = self._scores("cpu", False, 0)
        if float((wanted - other).abs().mean()) < 1e-3:
            raise ValueError("the window changes nothing")
        return float((found - wanted).abs().mean()), 0.05

    def rows_do_not_see_each_other(self) -> tuple[float, float]:
        """Log-probabilities of rows in one batch and alone, in bfloat16."""
        rows = make_rows(self.shape, self.shape.tokens, seed=2)
        decoder = self._decoder(self.device)
        alone = [self._score(decoder, packed_rows(rows.subset(np.array([n]))), True) for n in range(len(rows))]
        return float((torch.cat(alone) - self._score(decoder, self.batch, True)).abs().max()), 0.2

    def training_learns(self) -> tuple[float, float]:
        """Last loss of a training in full as a share of the first."""
        losses, _ = _trained(self._start(lr=1e-2))
        return losses[-1] / losses[0], 0.98

    def recomputing(self) -> tuple[float, float]:
        """Largest difference of losses with gradient checkpointing and micro-batches."""
        whole, _ = _trained(self._start(precision="fp32"))
        parts, _ = _trained(
            self._start(precision="fp32", gradient_checkpointing=True, micro_tokens=self.shape.tokens // 3)
        )
        return _apart(whole, parts), 1e-3

    def resuming(self) -> tuple[float, float]:
        """Largest difference of losses after an interruption; atomic sums make a GPU's differ a little."""
        whole, _ = _trained(self._start())
        with tempfile.TemporaryDirectory() as scratch:
            first = self._start(scratch=Path(scratch), checkpoint_seconds=1e-6)
            early, _ = _trained(first, stop=STEPS // 2)
            late, _ = _trained(self._start(scratch=Path(scratch)))
        return _apart(whole, early[: len(whole) - len(late)] + late), 0.02

    def qlora(self) -> tuple[float, float]:
        """Largest difference of losses between adapters on a base in 4 bits and on one in bfloat16."""
        if find_spec("bitsandbytes") is None or find_spec("peft") is None:
            raise Skip("extra qlora is not installed")
        four = self._start(lora=8, load_in_4bit=True)
        if not four.facts()["weights_in_4bit"]:
            raise ValueError("nothing is in 4 bits")
        losses, _ = _trained(four)
        plain, _ = _trained(self._start(lora=8))
        return _apart(losses, plain), 0.1

    def fsdp2(self) -> tuple[float, float]:
        """Relative difference of gradients of a model that is sharded over one process, in float32."""
        import torch.distributed as dist

        wanted = self._gradients(self.device, False)
        with tempfile.TemporaryDirectory() as folder:
            backend = "nccl" if self.device == "cuda" else "gloo"
            dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
            decoder = PackedDecoder(self._model(), torch.device(self.device))
            sharded = process_group._sharded(decoder)
            sharded(self._moved(self.device)).backward()
            found = [process_group.full_tensor(p.grad) for p in decoder.parameters() if p.grad is not None]
            dist.destroy_process_group()
        return _distance(torch.cat([each.flatten() for each in found]), wanted), 1e-4

    def export(self) -> tuple[float, float]:
        """Largest difference of log-probabilities between trained adapters, and the version opened from its files."""
        if find_spec("peft") is None:
            raise Skip("extra lora is not installed")
        training = self._start(lora=8, precision="fp32")
        _trained(training)
        with tempfile.TemporaryDirectory() as folder:
            training.prepared.save(Path(folder))
            metadata = training.task.metadata.model_copy(update=base_identity(self.folder))
            write_metadata(Path(folder), metadata)
            opened = PackedDecoder(open_model(Path(folder)).to(self.device))
        both = [self._score(each, self.batch, False) for each in (training.prepared.module.eval(), opened.eval())]
        return float((both[0] - both[1]).abs().max()), 1e-2

    def _start(self, scratch: Path | None = None, **changes: Any) -> Training:
        return start_training(job_of(self.shape, self.folder, STEPS, scratch, **changes))

    def _model(self, window: int = 0) -> Any:
        if not window:
            return open_model(self.folder).train()
        from transformers import MistralConfig, MistralForCausalLM

        plain = open_model(self.folder)
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        given = {name: getattr(plain.config, name) for name in (*names, "intermediate_size", "tie_word_embeddings")}
        model = MistralForCausalLM(MistralConfig(sliding_window=window, head_dim=plain.config.head_dim, **given))
        model.load_state_dict(plain.state_dict())
        return model.train()

    def _decoder(self, device: str, window: int = 0) -> PackedDecoder:
        return PackedDecoder(self._model(window).to(device))

    def _moved(self, device: str) -> dict[str, torch.Tensor]:
        return {name: tensor.to(device) for name, tensor in self.batch.items()}

    def _gradients(self, device: str, bf16: bool) -> torch.Tensor:
        """Gradients of all weights by the summed loss, float32 on the CPU."""
        decoder = self._decoder(device)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = decoder(self._moved(device))
        loss.backward()
        return torch.cat([p.grad.float().cpu().flatten() for p in decoder.parameters() if p.grad is not None])

    def _scores(self, device: str, bf16: bool, window: int) -> torch.Tensor:
        return self._score(self._decoder(device, window), self.batch, bf16)

    def _score(self, decoder: Any, batch: dict[str, torch.Tensor], bf16: bool) -> torch.Tensor:
        device = next(decoder.parameters()).device
        moved = {name: tensor.to(device) for name, tensor in batch.items()}
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return decoder(moved, scores=True)[0].float().cpu()


def names() -> list[str]:
    """Checks in order."""
    return [name for name in vars(Checks) if not name.startswith("_")]


def run_checks(shape: Shape, device: str, folder: Path, out: Path) -> dict[str, Any]:
    """Run all checks; write what was found after each."""
    checks, found = Checks(shape, device, folder), dict[str, Any]()
    for name in names():
        began = time.perf_counter()
        found[name] = _one(getattr(checks, name)) | {"seconds": round(time.perf_counter() - began, 1)}
        out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def _one(check: Callable[[], tuple[float, float]]) -> dict[str, Any]:
    try:
        value, most = check()
    except Skip as reason:
        return {"ok": True, "skipped": str(reason)}
    except Exception as error:  # noqa: BLE001 - one check that fails must not hide the others
        return {"ok": False, "failed": f"{type(error).__name__}: {error}"[:300]}
    return {"ok": bool(value <= most), "value": float(f"{value:.3g}"), "most": most}


def _trained(training: Training, stop: int = 0) -> tuple[list[float], Training]:
    """Train to the end, or until step `stop` was taken; return the losses."""
    losses: list[float] = []

    def on_step(step: int, steps: int, metrics: dict[str, float]) -> None:
        losses.append(metrics["loss"])
        if step == stop:
            raise KeyboardInterrupt

    training.job.on_step = on_step
    try:
        training.run()
    except KeyboardInterrupt:
        if not stop:
            raise
    return losses, training


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def _apart(one: list[float], other: list[float]) -> float:
    if len(one) != len(other):
        raise ValueError(f"{len(one)} and {len(other)} steps")
    return float(np.abs(np.subtract(one, other)).max())


if __name__ == "__main__":
    name, place, base, result = sys.argv[1:]
    configure_process(seed=0)
    run_checks(SHAPES[name], place, Path(base), Path(result))
