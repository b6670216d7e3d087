"""Export of a model to ONNX, and its dynamic int8 quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components.inference.backends.loader import _quiet, open_model
from raypath.components.inference.backends.onnx_runtime import FILES, PAD
from raypath.components.tasks.base import Task


def export(folder: Path, task: Task, out: Path) -> None:
    """Write the model of `folder` as model.onnx into `out`: any number of rows of any length, in float32.

    Raises torch.onnx.OnnxExporterError for a model that cannot be written so.
    """
    import torch

    model = open_model(folder, task, "fp32", "cpu", 0, alone=True)
    # Two rows of unlike length, so that nothing of one row or of full rows alone is written down as a constant.
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
    """Write model.int8.onnx beside model.onnx.

    Weights have a scale a column and 7 bits: with 8, processors without VNNI overflow in the sum of two products.
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
