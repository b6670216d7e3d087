"""Export of a model to ONNX, and its dynamic int8 quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components.inference.backends.loader import _quiet, open_model
from raypath.components.inference.backends.onnx_runtime import FILES, PAD
from raypath.components.tasks.base import Task


def export(folder: Path, task: Task, out: Path) -> None:
    """Export the model of `folder` to `out`/model.onnx in float32, with dynamic batch size and sequence length.

    Raises torch.onnx.OnnxExporterError for a model that cannot be exported.
    """
    import torch

    model = open_model(folder, task, "fp32", "cpu", 0)
    # Two rows of different length, so that neither batch size nor padding is traced as a constant.
    ids = torch.tensor([[5] * 16, [5] * 16])  # [2, 16]
    mask = torch.tensor([[1] * 16, [1] * 9 + [0] * 7])
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            _logits_of(model),
            (ids, mask),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[PAD] = str(getattr(model.config, "pad_token_id", None) or 0)
    program.save(out / FILES["onnx"], external_data=False)


def quantize_onnx(folder: Path) -> None:
    """Quantize model.onnx to model.int8.onnx in the same folder.

    Weights have 7 bits and a scale per column: with 8 bits, processors without VNNI overflow.
    """
    from onnxruntime.quantization import quantize_dynamic

    with _quiet():
        quantize_dynamic(folder / FILES["onnx"], folder / FILES["onnx-int8"], per_channel=True, reduce_range=True)


def _logits_of(model: Any) -> Any:
    import torch

    class Logits(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    return Logits().eval()
