"""ONNX graph of an encoder or a classifier: token ids and attention mask in, logits or states out."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.export.source import Source
from raypath.components.export.target import Progress, copy_files
from raypath.components.models.encoders.segments import add_segments

FILE = "model.onnx"
OPSET = 17
INPUTS = ("input_ids", "attention_mask")
TOLERANCE = 1e-3
"""Largest difference of an output from PyTorch's, as a share of the largest output."""


def write_onnx(source: Source, target: Path, progress: Progress) -> str:
    """Write model.onnx, tokenizer and configuration; returns the name of the output.

    Its outputs for rows of several lengths are compared with PyTorch's, where onnxruntime is installed. Raises
    DataError for a generative model or one that does not convert, ParamsError without the package onnx.
    """
    if importlib.util.find_spec("onnx") is None:
        raise ParamsError("ONNX needs the Python package onnx", fix="pip install 'raypath[onnx]'")
    import torch

    model = source.model.float()
    kind = type(model).__name__
    if model.config.is_encoder_decoder or model.can_generate():
        fix = "use --to hf" if model.config.is_encoder_decoder else "use --to gguf or hf"
        raise DataError(f"ONNX takes encoders and classifiers; this is a {kind}, which generates text", fix=fix)
    output = "last_hidden_state" if kind.endswith("Model") else "logits"
    module = _module(model, output, source)
    size = sum(weight.nbytes for weight in model.state_dict().values())
    progress(0, size)
    with _quiet(), torch.no_grad():
        _convert(torch, module, target / FILE, output)
    _compare(torch, module, target / FILE)
    copy_files(source.files("config.json"), target, lambda *_: None)
    progress(size, size)
    return output


def _module(model: Any, output: str, source: Source) -> Any:
    """Return a module whose forward pass has positional arguments and one output."""
    import torch

    if source.metadata is not None:
        add_segments(model, source.metadata.separator)

    class Module(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return getattr(self.model(input_ids=input_ids, attention_mask=attention_mask), output)

    return Module().eval()


def _convert(torch: Any, module: Any, path: Path, output: str) -> None:
    axes = {0: "rows", 1: "tokens"}
    # Two rows of different length, so that neither number is traced as a constant.
    example = _batch(torch, [16, 9])
    try:
        by_token = module(*example).ndim == 3
        dynamic = dict.fromkeys(INPUTS, axes) | {output: axes if by_token else {0: "rows"}}
        options = {"input_names": list(INPUTS), "output_names": [output], "dynamic_axes": dynamic}
        torch.onnx.export(module, example, str(path), dynamo=False, opset_version=OPSET, **options)
    except Exception as error:  # noqa: BLE001 - torch's tracing raises errors of many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"PyTorch does not convert this model to ONNX ({reason})", fix="use --to hf") from None


def _compare(torch: Any, module: Any, path: Path) -> None:
    """Raise DataError if onnxruntime gives other outputs than PyTorch; does nothing where it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import numpy as np
    import onnxruntime

    rows = _batch(torch, [3, 24, 1])
    with torch.no_grad():
        wanted = module(*rows).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {name: value.numpy() for name, value in zip(INPUTS, rows, strict=True)})
    real = rows[1].numpy().astype(bool) if wanted.ndim == 3 else slice(None)  # states of padding mean nothing
    difference = float(np.abs(found[real] - wanted[real]).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(wanted[real]).max())):
        raise DataError(f"the ONNX graph gives other outputs than PyTorch (by {difference:.2g})", fix="use --to hf")


def _batch(torch: Any, lengths: list[int]) -> tuple[Any, Any]:
    ids = torch.full((len(lengths), max(lengths)), 5)
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    return ids, mask


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of torch's tracing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
