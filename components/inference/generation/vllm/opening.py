"""Opening of vLLM's engine for the model of a folder, adapters merged."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.vllm.options import (
    DTYPES,
    Precision,
    VllmOptions,
    engine_arguments,
    import_vllm,
)
from raypath.components.models.adapters import adapter_base, is_adapter, open_model


def open_llm_engine(folder: Path, precision: Precision, device: str, options: VllmOptions, threads: int = 0) -> Any:
    """Return vLLM's LLMEngine of a model. Raises DataError for one that vLLM does not open, such as one that does not
    fit, ParamsError where vLLM is not installed."""
    import torch

    vllm = import_vllm()
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if on_cpu and threads:
        # vLLM's processes inherit these; it would pin one thread to each core, also beside other replicas.
        os.environ.update(VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS=str(threads))
    # Adapters are merged, as for every other engine; the weights are read once, so that the copy may go.
    with tempfile.TemporaryDirectory(prefix="raypath-vllm-") as merged:
        source = _merge(folder, Path(merged), precision) if is_adapter(folder) else folder
        arguments = vllm.EngineArgs(**engine_arguments(source, precision, options, on_cpu))
        try:
            return vllm.LLMEngine.from_engine_args(arguments)
        except Exception as error:  # noqa: BLE001 - of many types, some from another process
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            fix = "see the log above, or set registry.precision=bf16"
            raise DataError(f"vLLM does not open the model ({reason})", fix=fix) from None


def end_ids(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an answer, by the configurations in a folder and the tokenizer."""
    import transformers

    from raypath.components.inference.generation.transformers_engine import stop_ids

    base = adapter_base(folder) if is_adapter(folder) else folder
    try:
        generation = transformers.GenerationConfig.from_pretrained(base)
    except OSError:  # the folder has none
        generation = None
    return stop_ids(generation, transformers.AutoConfig.from_pretrained(base, trust_remote_code=False), tokenizer)


def _merge(folder: Path, target: Path, precision: Precision) -> Path:
    """Write the model of adapters and their base to a folder."""
    import torch
    import transformers

    open_model(folder).to(getattr(torch, DTYPES[precision])).save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(target)
    return target
