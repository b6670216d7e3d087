"""What multiplies the matrices: torch in float32, bfloat16 or int8, or ONNX Runtime in float32 or int8.

int8 is dynamic quantisation: weights are 8-bit numbers with a scale a row, what flows between layers is rounded for
each product. All answer the same call, `model(input_ids=..., attention_mask=...).logits`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.inference.backends import weight_sharing as sharing
from raypath.components.models.fast_bert import FIRST_TOKEN, read_first_token_only
from raypath.components.tasks import Task

Precision = Literal["fp32", "bf16", "int8", "onnx", "onnx-int8"]
FILES: dict[str, str] = {"onnx": "model.onnx", "onnx-int8": "model.int8.onnx"}
"""What ONNX Runtime opens, beside the weights in a model folder."""
CPU_ONLY = frozenset({"int8", "onnx", "onnx-int8"})
CPU_TOKENS: dict[str, int] = {"fp32": 768, "bf16": 1_536, "int8": 768, "onnx": 768, "onnx-int8": 768}
"""Tokens in a sub-batch where each is fastest; one and two cores, MiniLM-L6, 32 reviews at a time."""
CUDA_TOKENS = 65_536
SEQUENCE = "AutoModelForSequenceClassification"
EXTRA = ("onnxruntime", "onnx", "onnxscript")
PAD = "raypath.pad"


def budget_of(precision: Precision, device: str) -> int:
    """Tokens in a sub-batch, padding included."""
    return CUDA_TOKENS if device == "cuda" else CPU_TOKENS[precision]


def lacking(precision: str, task: Task, model_type: str) -> str:
    """Why a model cannot be made int8 or ONNX here; "" when it can.

    Only BERT's family is measured and known to come out right; a task with a forward pass of its own may ask more of a
    model than its logits.
    """
    if precision not in CPU_ONLY:
        return ""
    if task.auto != SEQUENCE or type(task).forward is not Task.forward:
        return "for tasks with a plain sequence classification head only"
    if model_type not in FIRST_TOKEN:
        return f"not for models of type {model_type}"
    if precision in FILES:
        away = [name for name in EXTRA if importlib.util.find_spec(name) is None]
        return f"{away[0]} is not installed (extra onnx)" if away else ""
    return ""


def open_model(
    folder: Path, task: Task, precision: Precision, device: str, threads: int, alone: bool = False, apart: bool = False
) -> Any:
    """A model on its device, ready to be asked. Raises DataError for a folder that does not open.

    Weights that other models of this process hold are shared, unless it is to be `alone`. apart: LoRA adapters stay
    beside the matrices, so that models on one base share these (in fp32 and bf16); merged they answer a little faster.
    """
    if precision in CPU_ONLY and device != "cpu":
        raise ParamsError(f"precision {precision} is for the CPU, not {device}", fix="use bf16 or fp32")
    if precision in FILES:
        return OnnxModel(folder / FILES[precision], threads)
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = _open(folder, task.auto, dtype).to(device).eval()
    attached = False
    if apart and precision in ("fp32", "bf16"):
        from raypath.components.inference.backends import lora_sharing as lora

        attached = lora.attach(model, folder)
    if precision == "bf16":
        _precise(model)
    known = {} if alone else sharing.digests(model)
    if known:
        if precision != "bf16" and device == "cpu" and not attached:
            # The file is mapped, and what was read of it for the digests stays in memory until the mapping goes.
            model = _open(folder, task.auto, dtype).eval()
        sharing.share(model, known)
    if precision == "int8":
        sharing.share_int8(model, known)
        _quantise(model)
        sharing.share_int8(model, known)
    if task.auto == SEQUENCE:
        read_first_token_only(model)
    sharing.give_back()
    return model


class OnnxModel:
    """A sequence classifier in ONNX Runtime, which gives a session its threads when it is opened.

    So there are two of them: one with all threads, and one with a single thread for callers whose torch is held to one
    (batching.py: two batches side by side). Threads sleep between products: spinning would cost the neighbours.
    Raises DataError for a file that is not there or does not open, ParamsError without onnxruntime.
    """

    def __init__(self, path: Path, threads: int) -> None:
        if not path.is_file():
            raise DataError(f"{path.parent} holds no {path.name}", fix="register it again, or use precision fp32")
        import torch

        all_threads = threads or torch.get_num_threads()
        self.together = _session(path, all_threads)
        self.single = self.together if all_threads == 1 else _session(path, 1)
        pad = self.together.get_modelmeta().custom_metadata_map.get(PAD, "0")
        self.config = SimpleNamespace(pad_token_id=int(pad))

    def __call__(self, input_ids: Any, attention_mask: Any) -> Any:
        """Tensors int64 [B, L] -> logits float32 [B, K] as a tensor, in the field `logits`."""
        import torch

        session = self.single if torch.get_num_threads() == 1 else self.together
        given = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return SimpleNamespace(logits=torch.from_numpy(session.run(["logits"], given)[0]))


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError:
        raise ParamsError("onnxruntime is not installed", fix="pip install 'raypath[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented) as error:
        raise DataError(f"{path} does not open ({str(error).splitlines()[0]})", fix="register it again") from None


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


def quantise_onnx(folder: Path) -> None:
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


def _quantise(model: Any) -> None:
    """Linear layers of the encoder to int8; the head, which is small and settles the answer, stays as it is."""
    import torch
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    with _quiet():
        how = {torch.nn.Linear: per_channel_dynamic_qconfig}
        quantize_dynamic(model.base_model, how, inplace=True)


def _precise(model: Any) -> None:
    """Let the head of a classifier or a regressor add up in float32: bfloat16 would round its answers to 8 bits."""
    for head in (getattr(model, name, None) for name in ("classifier", "score")):
        if head is not None:
            head.float().register_forward_pre_hook(lambda _, given: tuple(part.float() for part in given))


def _open(folder: Path, auto: str, dtype: Any) -> Any:
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    try:
        return getattr(transformers, auto).from_pretrained(
            str(folder), dtype=dtype, attn_implementation="sdpa", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"model {folder} does not open ({reason})", fix="give a model that Raypath made") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch announces the end of its own quantisation, and the exporter tells what it does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
