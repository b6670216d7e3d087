"""Opening of the engine that was chosen for a model, or the one that is fastest as a rule."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raypath.components.core.errors import RaypathError
from raypath.components.inference.backends.precision_config import machine
from raypath.components.inference.generation.openvino_genai.decoder_graph import unsupported_reason
from raypath.components.inference.generation.openvino_genai.pipeline import Precision, missing_package
from raypath.components.inference.generation.selection.choice import Opening, opening_of, read_engine_choice
from raypath.components.inference.generation.vllm.options import VllmOptions
from raypath.components.inference.generation.vllm.options import missing_package as missing_vllm
from raypath.components.models.bf16 import supports_bf16

if TYPE_CHECKING:
    from raypath.components.inference.generation.openvino_genai.engine import OpenVinoGenaiEngine
    from raypath.components.inference.generation.transformers_engine import TransformersEngine
    from raypath.components.inference.generation.vllm.engine import VllmEngine

PARAMETERS = 10_000_000
"""Fewest parameters of a model for which compiling, which takes seconds, is worth while without a measurement."""
ADAPTERS = 32
"""Adapters that a base in vLLM has room for."""
TOKENS = 2_000
"""Fewest tokens of a batch for which it is."""
_log = logging.getLogger(__name__)


def open_engine(
    folder: Path, threads: int = 0, device: str = "", serving: bool = True, vllm: VllmOptions | None = None
) -> TransformersEngine | OpenVinoGenaiEngine | VllmEngine:
    """Open the model of a folder, or of adapters with their base, in the engine that `register` chose.

    Without a choice, or one that was measured on another kind of machine: vLLM on a GPU where it is installed,
    openvino-genai on a CPU, for models that it has, else transformers. An engine that does not open is replaced by
    transformers.

    Args:
        threads: of the matmuls; 0 leaves the library's number.
        device: cpu or cuda; "" takes the GPU if there is one.
        serving: for requests that come and go: with JSON schemas and the prefix cache, where the engine has them.
        vllm: for vLLM, if it is the engine.

    Raises DataError for a folder that is no causal language model.
    """
    from raypath.components.inference.generation.transformers_engine import TransformersEngine

    where = "cpu" if on_cpu(device) else "cuda"
    choice = read_engine_choice(folder)
    if choice is not None and choice.machine.is_like(machine(where, threads)):
        how = opening_of(choice.engine, supports_bf16(where))
        if how.name == "transformers":
            return TransformersEngine.open(folder, how.precision, where)
        return _by_choice(folder, how, where, threads, serving, vllm)
    if where == "cuda":
        if missing_vllm():
            return TransformersEngine.open(folder, device=where)
        return _by_choice(folder, opening_of("vllm", supports_bf16(where)), where, threads, serving, vllm)
    opened = TransformersEngine.open(folder, device="cpu")
    return opened if why_not_compiled(opened.model) else compiled_from(opened, threads, serving)


def open_adaptable(folder: Path, vllm: VllmOptions) -> TransformersEngine | VllmEngine:
    """Open a base for adapters: in vLLM on a GPU where it is installed, else in transformers. Raises DataError."""
    from raypath.components.inference.generation.transformers_engine import TransformersEngine
    from raypath.components.inference.generation.vllm.engine import VllmEngine

    if on_cpu("") or missing_vllm():
        return TransformersEngine.open(folder)
    precision: Literal["bf16", "fp32"] = "bf16" if supports_bf16("cuda") else "fp32"
    return VllmEngine.open(folder, precision, "cuda", replace(vllm, adapters=ADAPTERS))


def fastest(engine: Any, threads: int, tokens: int) -> Any:
    """Return the engine that is faster for this many new tokens: the one given, of transformers, or the same model in
    openvino-genai.

    The model of the one given stays, for what needs its outputs.
    """
    worth = on_cpu(engine.model.device.type) and tokens >= TOKENS and not why_not_compiled(engine.model)
    return compiled_from(engine, threads, serving=False) if worth else engine


def on_cpu(device: str) -> bool:
    """Return True if a model is opened on the CPU. device: as for `open_engine`."""
    import torch

    return device == "cpu" or (not device and not torch.cuda.is_available())


def why_not_compiled(model: Any) -> str:
    """Return why a model of transformers is not opened in openvino-genai unless it is measured, "" if it is."""
    if why := unsupported_reason(model.config) or missing_package():
        return why
    return "" if model.num_parameters() >= PARAMETERS else f"it has less than {PARAMETERS:,} parameters"


def compiled_from(engine: TransformersEngine, threads: int, serving: bool) -> TransformersEngine | OpenVinoGenaiEngine:
    """Return the model of an engine in openvino-genai, in its precision; the engine itself if it does not compile."""
    from raypath.components.inference.generation.openvino_genai.engine import OpenVinoGenaiEngine

    precision: Precision = "bf16" if engine.precision == "bf16" else "fp32"
    try:
        return OpenVinoGenaiEngine(engine.model, engine.tokenizer, precision, threads, serving=serving)
    except RaypathError as error:
        _log.warning("generation by transformers: %s", error)
        return engine


def _by_choice(
    folder: Path, how: Opening, device: str, threads: int, serving: bool, vllm: VllmOptions | None
) -> TransformersEngine | OpenVinoGenaiEngine | VllmEngine:
    """Open a model in another engine than transformers, or in transformers if that engine does not open it."""
    from raypath.components.inference.generation.transformers_engine import TransformersEngine

    try:
        return open_other(folder, how, device, threads, serving, vllm)
    except RaypathError as error:
        _log.warning("generation by transformers: %s", error)
        return TransformersEngine.open(folder, device=device)


def open_other(
    folder: Path, how: Opening, device: str, threads: int, serving: bool, vllm: VllmOptions | None = None
) -> OpenVinoGenaiEngine | VllmEngine:
    """Open a model in openvino-genai or vLLM. Raises DataError, ParamsError."""
    if how.name == "vllm":
        from raypath.components.inference.generation.vllm.engine import VllmEngine

        return VllmEngine.open(folder, "bf16" if how.precision == "bf16" else "fp32", device, vllm, threads)
    from raypath.components.inference.generation.openvino_genai.engine import OpenVinoGenaiEngine

    return OpenVinoGenaiEngine.open(folder, how.precision, threads, serving)
