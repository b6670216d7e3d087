"""Inference engine: token ids in, task outputs out. Shared by evaluation, serving and batch prediction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raypath.components.inference.backends.loader import CPU_ONLY, Precision, budget_of, open_model
from raypath.components.inference.backends.precision_config import usable_precision
from raypath.components.inference.backends.weight_sharing import WeightTable
from raypath.components.inference.bucketing import group_by_length, padded_width, round_up
from raypath.components.models.bf16 import supports_bf16
from raypath.components.models.encoders.fast_bert import restore_forward
from raypath.components.models.metadata import read_metadata
from raypath.components.models.process import configure_process
from raypath.components.tasks.catalog import load_task


class Engine:
    """A model on one device. `record` may be called from several threads.

    Args:
        threads: Threads of PyTorch in this process, or of OpenVINO; 0 leaves them as they are.
        device: cpu, cuda, or auto: cuda if there is one, unless the precision is for the CPU only.
        budget: Sub-batch size in tokens; 0 takes the precision's default.
        precision: fp32, bf16, openvino, openvino-int8, plain or auto; see `resolve_precision`.
        separate_adapters: Keep LoRA adapters apart from the base weights, which models on one base then share.
        weights: Table of weights to share with other engines; None shares none.
        parallel: Sub-batches that are computed at a time on a CPU, each by one thread: outputs are then the same to the
            last bit for any number of cores. 0 computes one at a time with `threads`.

    Raises DataError for a folder that does not open.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 0,
        device: str = "auto",
        budget: int = 0,
        precision: Precision | Literal["auto", "plain"] = "auto",
        separate_adapters: bool = False,
        weights: WeightTable | None = None,
        parallel: int = 0,
    ) -> None:
        import torch

        threads = 1 if parallel else threads
        configure_process(threads)
        on_cuda = device == "cuda" or (device == "auto" and precision not in CPU_ONLY and torch.cuda.is_available())
        self.device = "cuda" if on_cuda else "cpu"
        self.precision = resolve_precision(folder, precision, self.device)
        self.budget = budget or budget_of(self.precision, self.device)
        metadata = read_metadata(folder)
        self.task, self.longest = load_task(metadata), metadata.max_length
        self.weights = weights
        self.parallel = parallel if self.device == "cpu" else 0
        self.model = open_model(
            folder, self.task, self.precision, self.device, threads, separate_adapters, weights, self.parallel
        )
        self.pad = int(getattr(self.model.config, "pad_token_id", None) or 0)
        # oneDNN and OpenVINO cache kernels for each shape (see bucketing.py).
        self.few = self.device == "cpu" and self.precision != "fp32"

    def record(self, tokens: Sequence[Sequence[int]], seed: int | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Run rows of token ids, special tokens included, and return the task's outputs, float32 [B, outputs].

        seed: evaluate instead of predict; a task with random inputs, such as masks, draws them from it.
        """
        import torch

        found = np.empty((len(tokens), self.task.outputs), dtype=np.float32)
        groups = group_by_length([self._width(len(row)) for row in tokens], self.budget, few=self.few)

        def run(number: int) -> None:
            group = groups[number]
            with torch.inference_mode():
                batch = self._padded([tokens[row] for row in group], blank=seed is None)
                if seed is not None:
                    batch = self.task.inputs(batch, np.random.default_rng([seed, number]))
                batch = {name: value.to(self.device) for name, value in batch.items()}
                out = self.task.record(self.task.forward(self.model, batch), batch)
                found[group] = out[: len(group)].float().cpu().numpy()

        if self.parallel > 1 and len(groups) > 1:
            # PyTorch's number of threads is one of the calling thread.
            workers = min(self.parallel, len(groups))
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(run, range(len(groups))))
        else:
            for number in range(len(groups)):
                run(number)
        return found

    def warm(self) -> None:
        """Run one forward pass, so that the first request is not delayed by lazy initialization."""
        self.record([[self.pad] * 8])

    def __del__(self) -> None:
        """Break the reference cycle of a replaced `forward`, so that memory is freed without the garbage collector."""
        model: Any = getattr(self, "model", None)
        if hasattr(model, "modules"):
            restore_forward(*model.modules())

    def _width(self, length: int) -> int:
        """Return the minimum padded width of a row."""
        return max(length, min(padded_width(length), self.longest)) if self.few else max(length, 1)

    def _padded(self, rows: list[Sequence[int]], blank: bool = True) -> dict[str, Any]:
        """Pad rows to a batch; `blank` adds empty rows where the number of shapes has to be small."""
        import torch

        number = round_up(len(rows)) if self.few and blank else len(rows)
        width = self._width(max(map(len, rows)))
        ids = np.full((number, width), self.pad, dtype=np.int64)  # [b, width]
        mask = np.zeros_like(ids)
        # An empty row attends to one position: softmax over nothing is NaN.
        mask[:, 0] = 1
        for n, row in enumerate(rows):
            ids[n, : len(row)] = row
            mask[n, : len(row)] = 1
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def resolve_precision(folder: Path, precision: Precision | Literal["auto", "plain"], device: str) -> Precision:
    """Resolve the precision of an engine.

    auto: the one in precision.json if it is usable on this machine, else plain. plain: bf16 if the device supports it,
    else fp32; used by evaluation, whatever precision.json says.
    """
    if precision != "auto" and precision != "plain":
        return precision
    fit = usable_precision(folder, device) if precision == "auto" else None
    return fit or ("bf16" if supports_bf16(device) else "fp32")


def model_type(folder: Path) -> str:
    """Return the architecture of a model folder, such as bert."""
    return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type"))
