"""Inference backends: PyTorch (fp32, bf16) and OpenVINO (float, int8).

All share one call signature, `model(input_ids=..., attention_mask=...).logits`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.inference.backends.openvino_runtime import EXTRA, FILES, OpenVinoModel
from raypath.components.inference.backends.weight_sharing import WeightTable, trim_memory, weight_digests
from raypath.components.models.attention import attention_of
from raypath.components.models.encoders.fast_bert import FIRST_TOKEN_MODELS, read_first_token_only
from raypath.components.models.process import MODELS, import_large
from raypath.components.tasks.base import Task

Precision = Literal["fp32", "bf16", "openvino", "openvino-int8"]
CPU_ONLY = frozenset({"openvino", "openvino-int8"})
CPU_TOKENS: dict[str, int] = {"fp32": 768, "bf16": 1_536, "openvino": 768, "openvino-int8": 768}
"""Sub-batch size in tokens at which each precision is fastest (MiniLM-L6, 32 reviews at a time, one and two cores)."""
CUDA_TOKENS = 65_536
SEQUENCE = "AutoModelForSequenceClassification"


def budget_of(precision: Precision, device: str) -> int:
    """Return the default sub-batch size in tokens, padding included."""
    return CUDA_TOKENS if device == "cuda" else CPU_TOKENS[precision]


def unsupported_reason(precision: str, task: Task, model_type: str) -> str:
    """Return why a model does not support OpenVINO, "" if it does.

    Only models of BERT's family are tested; a task with its own forward pass may need more than the logits.
    """
    if precision not in CPU_ONLY:
        return ""
    if task.auto != SEQUENCE or type(task).forward is not Task.forward:
        return "for tasks with a plain sequence classification head only"
    return "" if model_type in FIRST_TOKEN_MODELS else f"not for models of type {model_type}"


def missing_package(precision: str) -> str:
    """Return what a precision needs and is not installed, "" if it has all."""
    away = precision in FILES and importlib.util.find_spec("openvino") is None
    return f"openvino is not installed (extra {EXTRA})" if away else ""


def open_model(
    folder: Path,
    task: Task,
    precision: Precision,
    device: str,
    threads: int,
    separate_adapters: bool = False,
    weights: WeightTable | None = None,
    parallel: int = 0,
) -> Any:
    """Open a model for inference. Raises DataError for a folder that does not open.

    Args:
        separate_adapters: Keep LoRA adapters apart from the base weights in fp32 and bf16, so that models on one base
            share these. Merged adapters are slightly faster.
        weights: Table of weights to share with other models; None shares none.
        parallel: Batches of one thread each at a time, for OpenVINO; 0: one batch with all threads as well.
    """
    if precision in CPU_ONLY and device != "cpu":
        raise ParamsError(f"precision {precision} is for the CPU, not {device}", fix="use bf16 or fp32")
    if precision in FILES:
        return OpenVinoModel(folder / FILES[precision][0], threads, parallel)
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = _open(folder, task, dtype).to(device).eval()
    attached = False
    if separate_adapters:
        from raypath.components.inference.backends import lora_sharing as lora

        attached = lora.attach(model, folder, WeightTable() if weights is None else weights)
    if precision == "bf16":
        _keep_head_in_fp32(model)
    digests = {} if weights is None else weight_digests(model)
    if digests and precision != "bf16" and device == "cpu" and not attached:
        # The file is mapped, and pages that were read for the digests stay in memory until the mapping is closed.
        model = _open(folder, task, dtype).eval()
    if weights is not None:
        weights.share(model, digests)
    if task.auto == SEQUENCE:
        read_first_token_only(model)
    trim_memory()
    return model


def _keep_head_in_fp32(model: Any) -> None:
    """Compute the head in float32: bfloat16 would round the outputs to 8 bits."""
    for head in (getattr(model, name, None) for name in ("classifier", "score")):
        if head is not None:
            head.float().register_forward_pre_hook(lambda _, given: tuple(part.float() for part in given))


def _open(folder: Path, task: Task, dtype: Any) -> Any:
    import_large(*MODELS)
    import transformers
    from safetensors import SafetensorError

    from raypath.components.models.encoders.segments import add_segments

    transformers.utils.logging.disable_progress_bar()
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), **here)
        model = getattr(transformers, task.auto).from_pretrained(
            str(folder),
            config=config,
            dtype=dtype,
            attn_implementation=attention_of(task.auto, config),
            use_safetensors=True,
            **here,
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"model {folder} does not open ({reason})", fix="use a model folder that Raypath wrote"
        ) from None
    add_segments(model, task.metadata.separator)
    return model
