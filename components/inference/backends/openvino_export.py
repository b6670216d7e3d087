"""Export of a model to OpenVINO, and its static int8 quantization."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raypath.components.inference.backends.int8_calibration import LayerInput, calibrate
from raypath.components.inference.backends.loader import open_model
from raypath.components.inference.backends.openvino_runtime import FILES, import_openvino, save_graph
from raypath.components.tasks.base import Task

CALIBRATION_ROWS = 128
SAMPLED_TOKENS = 512
"""Tokens of the calibration rows whose states are kept for each layer, to choose its scales."""


class ExportError(Exception):
    """A model that OpenVINO does not convert, or that it converts to one with other outputs."""


def export(folder: Path, task: Task, out: Path) -> None:
    """Export the model of `folder` to `out` in float32, with dynamic batch size and sequence length.

    Raises ExportError.
    """
    import torch

    openvino = import_openvino()
    module = _logits_of(open_model(folder, task, "fp32", "cpu", 0))
    # Two rows of different length, so that neither batch size nor padding is traced as a constant.
    example = _batch(torch, [16, 9])
    try:
        with _quiet(), torch.inference_mode(False), torch.no_grad():
            model = openvino.convert_model(module, example_input=example)
            other = _batch(torch, [3, 24, 1])
            wanted = module(**other).numpy()
            options = {"INFERENCE_PRECISION_HINT": "f32"}
            found = openvino.compile_model(model, "CPU", options)([value.numpy() for value in other.values()])[0]
    except Exception as error:  # noqa: BLE001 - torch's tracing and OpenVINO raise errors of many types
        reason = str(error).strip() or type(error).__name__
        raise ExportError(reason.splitlines()[0]) from None
    if not np.allclose(found, wanted, rtol=1e-2, atol=1e-2 * float(np.abs(wanted).max())):
        raise ExportError("its outputs differ from PyTorch's")
    save_graph(model, out / FILES["openvino"][0], compress_to_fp16=False)


def quantize(folder: Path, rows: Sequence[Sequence[int]], threads: int, limit: float, narrowing: bool = True) -> None:
    """Quantize the exported model of `folder` to int8, weights and activations.

    Weights have a scale per output, activations one scale for all tokens, from `rows` of token ids. Activations differ
    by channel, so a part of each channel's size is moved to the weights first (SmoothQuant), as large a part as gives
    the smallest error of the layer's output; the mean of the error that is left is subtracted from the bias. The head
    stays in float, and so do matmuls of the encoder whose output has a squared error above `limit`, as a share of its
    variance.

    narrowing: Quantize matmuls with more inputs than outputs too. That is the second of a feed-forward network, whose
    input has a few very large values: with it in float, MiniLM-L6 has a third less error at 0.9 of the speed.
    """
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(folder / FILES["openvino"][0])
    places = np.linspace(0, len(rows) - 1, min(CALIBRATION_ROWS, len(rows))).astype(int)
    groups = _matmuls(model)
    inputs = _observe(core, model, list(groups), [rows[place] for place in places], threads)
    for (_, matmuls), states in zip(groups.items(), inputs, strict=True):
        if narrowing or len(states.low) <= _outputs(matmuls[0]):
            _quantize_group(openvino.opset13, matmuls, states, limit)
    model.validate_nodes_and_infer_types()
    save_graph(model, folder / FILES["openvino-int8"][0], compress_to_fp16=True)


def _matmuls(model: Any) -> dict[tuple[str, int], list[Any]]:
    """Return the encoder's matmuls with weights, by the name and index of their input. The head reads no sequence."""
    found: dict[tuple[str, int], list[Any]] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        source = node.input_value(0)
        if source.get_partial_shape().rank.get_length() == 3 and node.get_attributes()["transpose_b"]:
            found.setdefault((source.get_node().get_friendly_name(), source.get_index()), []).append(node)
    return found


def _observe(
    core: Any, model: Any, names: list[tuple[str, int]], rows: list[Sequence[int]], threads: int
) -> list[LayerInput]:
    """Run the rows in float32 and return what each of these outputs was."""
    copy = model.clone()
    nodes = {node.get_friendly_name(): node for node in copy.get_ordered_ops()}
    copy.add_outputs([nodes[name].output(index) for name, index in names])
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    request = core.compile_model(copy, "CPU", options).create_infer_request()
    found, few = [LayerInput() for _ in names], max(1, SAMPLED_TOKENS // len(rows))
    for row in rows:
        ids = np.asarray([row if len(row) else [0]], dtype=np.int64)
        outputs = request.infer([ids, np.ones_like(ids)])
        for layer, number in zip(found, range(len(model.outputs), len(model.outputs) + len(names)), strict=True):
            layer.add(outputs[number][0], few)
    return found


def _outputs(matmul: Any) -> int:
    return int(matmul.get_output_partial_shape(0)[-1].get_length())


def _quantize_group(ops: Any, matmuls: list[Any], states: LayerInput, limit: float) -> None:
    """Replace the common input of some matmuls by its quantized form, and so each one's weights and bias."""
    weights = [node.input_value(1).get_node().data.astype(np.float32) for node in matmuls]
    scales = calibrate(states, weights)
    if scales.error > limit:
        return
    smooth = ops.multiply(matmuls[0].input_value(0), ops.constant(1 / scales.smoothing[None, None]))
    low, high = np.float32(scales.low), np.float32(scales.high)
    quantized = ops.fake_quantize(smooth, low, high, low, high, 256)
    for node, layer in zip(matmuls, scales.weights, strict=True):
        users = [user.get_node() for user in node.output(0).get_target_inputs()]
        node.input(0).replace_source_output(quantized.output(0))
        stored = ops.convert(ops.constant(layer.values), np.float32)
        node.input(1).replace_source_output(ops.multiply(stored, ops.constant(layer.scales)).output(0))
        for user in users:
            _correct_bias(ops, user, layer.error)


def _correct_bias(ops: Any, node: Any, error: Any) -> None:
    """Subtract the mean error [out] from the bias, where the node adds one."""
    if node.get_type_name() != "Add":
        return
    for side in (0, 1):
        bias = node.input_value(side).get_node()
        if bias.get_type_name() == "Constant" and bias.data.size == error.size:
            corrected = bias.data - error.reshape(bias.data.shape)
            node.input(side).replace_source_output(ops.constant(corrected.astype(np.float32)).output(0))


def _batch(torch: Any, lengths: list[int]) -> dict[str, Any]:
    ids = torch.full((len(lengths), max(lengths)), 5)
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    return {"input_ids": ids, "attention_mask": mask}


def _logits_of(model: Any) -> Any:
    import torch

    class Logits(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    return Logits().eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of torch's tracing and the output of the conversion."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
