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
from typing import Any, Literal

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.inference.backends import weight_sharing as sharing
from raypath.components.inference.backends.onnx_runtime import EXTRA, FILES, OnnxModel
from raypath.components.models.fast_bert import FIRST_TOKEN_MODELS, read_first_token_only
from raypath.components.tasks.base import Task

Precision = Literal["fp32", "bf16", "int8", "onnx", "onnx-int8"]
CPU_ONLY = frozenset({"int8", "onnx", "onnx-int8"})
CPU_TOKENS: dict[str, int] = {"fp32": 768, "bf16": 1_536, "int8": 768, "onnx": 768, "onnx-int8": 768}
"""Tokens in a sub-batch where each is fastest; one and two cores, MiniLM-L6, 32 reviews at a time."""
CUDA_TOKENS = 65_536
SEQUENCE = "AutoModelForSequenceClassification"


def budget_of(precision: Precision, device: str) -> int:
    """Tokens in a sub-batch, padding included."""
    return CUDA_TOKENS if device == "cuda" else CPU_TOKENS[precision]


def unsupported_reason(precision: str, task: Task, model_type: str) -> str:
    """Why a model cannot be made int8 or ONNX here; "" when it can.

    Only BERT's family is measured and known to come out right; a task with a forward pass of its own may ask more of a
    model than its logits.
    """
    if precision not in CPU_ONLY:
        return ""
    if task.auto != SEQUENCE or type(task).forward is not Task.forward:
        return "for tasks with a plain sequence classification head only"
    if model_type not in FIRST_TOKEN_MODELS:
        return f"not for models of type {model_type}"
    if precision in FILES:
        away = [name for name in EXTRA if importlib.util.find_spec(name) is None]
        return f"{away[0]} is not installed (extra onnx)" if away else ""
    if precision == "int8" and not has_torch_int8():
        return "this PyTorch has no torch.ao.quantization; onnx-int8 needs none (extra onnx)"
    return ""


def has_torch_int8() -> bool:
    """True where PyTorch still has `torch.ao.quantization`, whose removal is announced."""
    try:
        return importlib.util.find_spec("torch.ao.quantization") is not None
    except ModuleNotFoundError:  # torch.ao itself is gone
        return False


def open_model(
    folder: Path,
    task: Task,
    precision: Precision,
    device: str,
    threads: int,
    alone: bool = False,
    separate_adapters: bool = False,
) -> Any:
    """A model on its device, ready to be asked. Raises DataError for a folder that does not open.

    Weights that other models of this process hold are shared, unless it is to be `alone`. separate_adapters: keep LoRA
    adapters apart from the matrices, so that models on one base share these (in fp32 and bf16).
    """
    if precision in CPU_ONLY and device != "cpu":
        raise ParamsError(f"precision {precision} is for the CPU, not {device}", fix="use bf16 or fp32")
    if precision in FILES:
        return OnnxModel(folder / FILES[precision], threads)
    if precision == "int8" and not has_torch_int8():
        raise ParamsError("int8 needs torch.ao.quantization, which this PyTorch lacks", fix="use onnx-int8 or bf16")
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = _open(folder, task.auto, dtype).to(device).eval()
    attached = False
    if separate_adapters and precision in ("fp32", "bf16"):
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
        _quantize(model)
        sharing.share_int8(model, known)
    if task.auto == SEQUENCE:
        read_first_token_only(model)
    sharing.give_back()
    return model


def _quantize(model: Any) -> None:
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
