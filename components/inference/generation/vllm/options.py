"""Options of vLLM, its import without telemetry, and the architectures that it has."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raypath.components.core.errors import ParamsError
from raypath.components.models.process import free_memory

EXTRA = "llm"
Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
MEMORY_SHARE, MOST_BYTES = 0.25, 2 * 2**30
"""Share of the free memory of a machine without GPU for keys and values, and the most of it: vLLM allocates all of it
at the start."""
MOST_RANK = 64
"""Largest rank of adapters; each slot has matrices of this size."""


@dataclass(frozen=True)
class VllmOptions:
    """Options of a replica, besides the model and its precision."""

    tensor_parallel_size: int = 1
    """GPUs over which each matrix is divided."""
    gpu_memory_share: float = 0.9
    """Share of each GPU's memory for weights, keys and values. Two versions of a service have to fit side by side."""
    adapters: int = 0
    """LoRA adapters that are loaded at a time; 0 opens the model without, which is faster."""
    cache_bytes: int = 0
    """Memory for keys and values; 0 takes what the share allows."""
    eager: bool = False
    """Do not compile the model, nor capture CUDA graphs: it starts sooner, and is slower."""


def missing_package() -> str:
    """Return what is not installed, "" if all is."""
    return "" if importlib.util.find_spec("vllm") else f"vllm is not installed (extra {EXTRA})"


def import_vllm() -> Any:
    """Import vllm, which then reports nothing to its authors and logs warnings alone. Raises ParamsError where it is
    not installed."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.update(VLLM_NO_USAGE_STATS="1", VLLM_DO_NOT_TRACK="1")
    try:
        import vllm
    except ImportError as error:
        what = missing_package() or f"vllm does not load ({error})"
        raise ParamsError(what, fix=f"pip install 'raypath[{EXTRA}]', or use the image VARIANT=llm") from None
    return vllm


def engine_arguments(folder: Path, precision: Precision, options: VllmOptions, on_cpu: bool) -> dict[str, Any]:
    """Return the arguments of vLLM's EngineArgs for the model of a folder.

    The context is the model's, or the longest that fits in the memory for keys and values.
    """
    found: dict[str, Any] = {
        "model": str(folder),
        "tokenizer": str(folder),
        "dtype": DTYPES[precision],
        "max_model_len": -1,
        "tensor_parallel_size": options.tensor_parallel_size,
        "gpu_memory_utilization": options.gpu_memory_share,
        "enable_prefix_caching": True,
        "enforce_eager": options.eager,
        "generation_config": "vllm",  # defaults of sampling are Raypath's
        "disable_log_stats": True,
        # Where a schema allows any whitespace, some models generate nothing else.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "load_format": "safetensors",
        "trust_remote_code": False,
    }
    if options.adapters:
        # One more slot, so that the next version of an adapter loads beside it. On a CPU, rows without an adapter read
        # the last slot, which has to stay empty.
        slots = options.adapters + (2 if on_cpu else 1)
        found |= {"enable_lora": True, "max_loras": slots, "max_lora_rank": MOST_RANK}
    if options.cache_bytes or on_cpu:
        found["kv_cache_memory_bytes"] = options.cache_bytes or int(min(MEMORY_SHARE * free_memory(), MOST_BYTES))
    return found
