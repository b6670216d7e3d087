"""The inference engine: token ids in, what the task records of them out. Evaluation, service and prediction use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raypath.components.inference.backends.loader import CPU_ONLY, Precision, budget_of, open_model
from raypath.components.inference.backends.precision_config import usable_precision
from raypath.components.inference.bucketing import group_by_length, padded_width, round_up
from raypath.components.models.bf16 import supports_bf16
from raypath.components.models.fast_bert import restore_forward
from raypath.components.models.metadata import read_metadata
from raypath.components.models.process import configure_process
from raypath.components.tasks.catalog import load_task


class Engine:
    """A model on one device, ready to answer; `record` may be called from several threads.

    threads: of torch or ONNX Runtime in this process, 0 leaves them. device: cpu, cuda, or auto (cuda where there is
    one and the precision is not for the CPU alone). budget: tokens in a sub-batch, 0 takes the precision's own.
    precision: fp32, bf16, int8, onnx, onnx-int8, plain, or auto; see `resolve_precision`. separate_adapters: keep LoRA
    adapters apart from the matrices, which models on one base then share. Raises DataError for a corrupt folder.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 0,
        device: str = "auto",
        budget: int = 0,
        precision: Precision | Literal["auto", "plain"] = "auto",
        separate_adapters: bool = False,
    ) -> None:
        import torch

        configure_process(threads)
        on_cuda = device == "cuda" or (device == "auto" and precision not in CPU_ONLY and torch.cuda.is_available())
        self.device = "cuda" if on_cuda else "cpu"
        self.precision = resolve_precision(folder, precision, self.device)
        self.budget = budget or budget_of(self.precision, self.device)
        metadata = read_metadata(folder)
        self.task, self.longest = load_task(metadata), metadata.max_length
        self.model = open_model(
            folder, self.task, self.precision, self.device, threads, separate_adapters=separate_adapters
        )
        self.pad = int(getattr(self.model.config, "pad_token_id", None) or 0)
        # For each shape that it meets oneDNN keeps a program (shapes.py).
        self.few = (self.precision, self.device) == ("bf16", "cpu")

    def record(self, tokens: Sequence[Sequence[int]], seed: int | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Rows of token ids, special ones included -> what the task records of them, float32 [B, outputs].

        seed: measures instead of answering; a task that draws by lot what it is asked (masks) draws from it.
        """
        import torch

        found = np.empty((len(tokens), self.task.outputs), dtype=np.float32)
        with torch.inference_mode():
            groups = group_by_length([self._width(len(row)) for row in tokens], self.budget, few=self.few)
            for number, group in enumerate(groups):
                batch = self._padded([tokens[row] for row in group], blank=seed is None)
                if seed is not None:
                    batch = self.task.inputs(batch, np.random.default_rng([seed, number]))
                batch = {name: value.to(self.device) for name, value in batch.items()}
                out = self.task.record(self.task.forward(self.model, batch), batch)
                found[group] = out[: len(group)].float().cpu().numpy()
        return found

    def warm(self) -> None:
        """One forward pass, so that the first caller does not pay for lazy set-up."""
        self.record([[self.pad] * 8])

    def __del__(self) -> None:
        """A top layer that computes one token refers to itself: cut that, or its memory waits for the collector."""
        model: Any = getattr(self, "model", None)
        if hasattr(model, "modules"):
            restore_forward(*model.modules())

    def _width(self, length: int) -> int:
        """Tokens that a row of so many is padded to at least."""
        return max(length, min(padded_width(length), self.longest)) if self.few else max(length, 1)

    def _padded(self, rows: list[Sequence[int]], blank: bool = True) -> dict[str, Any]:
        """A batch of these rows; after them, where shapes are to be few, `blank` ones that nobody asks for."""
        import torch

        number = round_up(len(rows)) if self.few and blank else len(rows)
        width = self._width(max(map(len, rows)))
        ids = np.full((number, width), self.pad, dtype=np.int64)  # [b, width]
        mask = np.zeros_like(ids)
        # A row without a token still attends to one place: softmax over nothing is not a number.
        mask[:, 0] = 1
        for n, row in enumerate(rows):
            ids[n, : len(row)] = row
            mask[n, : len(row)] = 1
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def resolve_precision(folder: Path, precision: Precision | Literal["auto", "plain"], device: str) -> Precision:
    """The precision that an engine runs in.

    auto: what precision.json in the folder says where it fits this machine, else as plain. plain: bf16 where the device
    multiplies in it, else fp32; what evaluation measures by, whatever the folder says.
    """
    if precision != "auto" and precision != "plain":
        return precision
    fit = usable_precision(folder, device) if precision == "auto" else None
    return fit or ("bf16" if supports_bf16(device) else "fp32")
