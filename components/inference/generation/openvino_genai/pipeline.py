"""Opening of openvino-genai's pipeline for continuous batching, from a model of transformers."""

from __future__ import annotations

import importlib.util
import json
import logging
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.inference.backends.openvino_runtime import import_openvino, save_graph
from raypath.components.inference.generation.openvino_genai.decoder_graph import build_graph
from raypath.components.models.process import free_memory

_log = logging.getLogger(__name__)
Precision = Literal["fp32", "bf16", "int8"]
BLOCK = 32
"""Tokens of a block of keys and values."""
MOST_ROWS = 256
"""Most requests in a step."""
STEP_TOKENS = 512
"""Most tokens of a step: a longer prompt is read in parts, between which other requests get their tokens."""
MEMORY_SHARE, MOST_BYTES = 0.25, 16 * 2**30
"""Share of the free memory for keys and values, and the most of it."""
MOST_CONTEXTS = 64
"""Most memory for keys and values, in requests of the whole context."""
EXTRA = "generate"


class Opened(NamedTuple):
    """A pipeline, and the tokens that its cache holds."""

    pipeline: Any
    tokens: int


def missing_package() -> str:
    """Return what is not installed, "" if all is."""
    away = importlib.util.find_spec("openvino_genai") is None
    return f"openvino-genai is not installed (extra {EXTRA})" if away else ""


def import_genai() -> Any:
    """Import openvino_genai without telemetry. Raises ParamsError where it is not installed."""
    import_openvino()
    try:
        import openvino_genai
    except ImportError:
        raise ParamsError("openvino-genai is not installed", fix=f"pip install 'raypath[{EXTRA}]'") from None
    return openvino_genai


def open_pipeline(
    model: Any, tokenizer: Any, precision: Precision, threads: int, cache_tokens: int = 0, prefixes: bool = True
) -> Opened:
    """Compile a causal language model of transformers for the CPU.

    Args:
        model: in float32, or in bf16 or int8 in the precision of its file.
        tokenizer: for JSON schemas, which need its vocabulary; None, or one that OpenVINO does not convert, goes
            without.
        threads: of the matmuls; 0 takes all cores.
        cache_tokens: of keys and values; 0 takes what the free memory allows.
        prefixes: keys and values of prompts are kept for prompts that begin alike.

    Raises DataError for a model that does not compile, or whose cache does not fit.
    """
    genai = import_genai()
    element = 4 if precision == "fp32" else 2
    tokens = cache_tokens or _cache_tokens(model.config, element)
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = -(-tokens // BLOCK)
    scheduler.max_num_seqs, scheduler.max_num_batched_tokens = MOST_ROWS, STEP_TOKENS
    scheduler.dynamic_split_fuse, scheduler.enable_prefix_caching = True, prefixes
    options = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else _float_precision(),
        "KV_CACHE_PRECISION": "f32" if precision == "fp32" else _float_precision(),
        "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
    }
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    with tempfile.TemporaryDirectory(prefix="raypath-openvino-") as folder:
        _write(Path(folder), model, tokenizer, precision == "int8")
        try:
            # The weights are mapped; the files may go once they are.
            return Opened(genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", options), tokens // BLOCK * BLOCK)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise DataError(f"OpenVINO does not compile the model ({reason})", fix="use another engine") from None


def _float_precision() -> str:
    from raypath.components.models.bf16 import supports_bf16

    return "bf16" if supports_bf16("cpu") else "f32"


def _cache_tokens(config: Any, element: int) -> int:
    """Return the tokens whose keys and values take a share of the free memory. Raises DataError for too few."""
    from raypath.components.inference.generation.batching.kv_cache import bytes_per_token

    found = int(min(MEMORY_SHARE * free_memory(), MOST_BYTES) / bytes_per_token(config, element))
    context = int(getattr(config, "max_position_embeddings", 0) or 2**15)
    if found < BLOCK * 8:
        what = f"keys and values of {BLOCK * 8} tokens do not fit in a quarter of the free memory"
        raise DataError(what, fix="free memory, or serve the model on a larger machine")
    return min(found, MOST_CONTEXTS * context)


def _write(folder: Path, model: Any, tokenizer: Any, int8: bool) -> None:
    """Write what the pipeline reads: the graph, its configuration, and the tokenizer."""
    openvino = import_openvino()
    graph, weights = build_graph(model, int8)
    save_graph(graph, folder / "openvino_model.xml", compress_to_fp16=False)
    del graph, weights
    config = {"model_type": model.config.model_type, "architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if tokenizer is not None:
        _write_tokenizer(openvino, folder, tokenizer)


def _write_tokenizer(openvino: Any, folder: Path, tokenizer: Any) -> None:
    from openvino_tokenizers import convert_tokenizer

    try:
        parts = convert_tokenizer(tokenizer, with_detokenizer=True)
    except Exception as error:  # noqa: BLE001 - the conversion raises errors of many types
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        _log.warning("JSON schemas are not available: OpenVINO does not convert the tokenizer (%s)", reason[0])
        return
    for part, name in zip(parts, ("openvino_tokenizer.xml", "openvino_detokenizer.xml"), strict=True):
        save_graph(part, folder / name, compress_to_fp16=True)
