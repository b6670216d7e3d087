"""Memory of a training: estimate it before the start and adapt the settings so that it fits; measure its peak."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from raypath.components.core.errors import DataError
from raypath.components.models.decoder.chunked_loss import BLOCK, LEAST, LOGITS
from raypath.components.models.encoders.fast_bert import SHORT_ROWS, SHORT_ROWS_BF16
from raypath.components.models.process import free_memory
from raypath.components.models.trainable.quantized import BYTES, is_installed, quantizable
from raypath.components.training.params import ResolvedParams

GIB = float(1 << 30)
SPARE = 0.8
"""Share of free memory that training may use."""
LEAST_TOKENS = 512
LORA_RANK = 8


@dataclass(frozen=True)
class MemoryPlan:
    """Memory settings of a training; `summary` describes what was changed, for people."""

    micro_tokens: int
    checkpointing: bool
    lora: int
    load_in_4bit: bool = False
    summary: str = ""


def plan_memory(
    model: Any,
    params: ResolvedParams,
    longest: int,
    bf16: bool,
    world_size: int,
    concurrent_trials: int = 1,
    packed: bool = False,
) -> MemoryPlan:
    """Return the first plan that fits: the whole step, micro-batches, activation checkpointing, LoRA, QLoRA.

    longest: tokens of the longest row; packed: a decoder whose logits exist in chunks; concurrent_trials: trainings
    that share the memory, including this one. The settings are kept with params.memory="full" or where they fit. Raises
    DataError when nothing fits.
    """
    requested = MemoryPlan(
        params.micro_tokens or params.batch_tokens, params.gradient_checkpointing, params.lora, params.load_in_4bit
    )
    free = free_bytes() * SPARE / (concurrent_trials * (world_size if not torch.cuda.is_available() else 1))
    slices = world_size if params.shard else 1

    def need(plan: MemoryPlan) -> float:
        return estimate(model, plan, bf16, longest, slices, packed)

    if params.memory == "full" or need(requested) <= free:
        return requested
    plans = list(_plans(requested, longest, four_bits=packed and slices == 1 and bool(quantizable(model))))
    usable = [plan for plan in plans if _is_installed(plan, requested)]
    for plan in (plan for plan in usable if need(plan) <= free):
        sizes = f"{need(requested) / GIB:.1f} GiB are needed and {free / GIB:.1f} are available"
        return replace(plan, summary=f"{sizes}: {_changes(plan, requested)}")
    fix = "use a smaller base or a lower preprocess.max_length, or more workers with finetune.shard=true"
    fitting = next((plan for plan in plans if need(plan) <= free), None)
    if fitting is not None:
        extra = "qlora" if fitting.load_in_4bit else "lora"
        fix = f"pip install 'raypath[{extra}]', with which it fits; or {fix}"
    least = min(map(need, usable))
    raise DataError(f"training needs {least / GIB:.1f} GiB at least and {free / GIB:.1f} are available", fix=fix)


def estimate(model: Any, plan: MemoryPlan, bf16: bool, longest: int, slices: int = 1, packed: bool = False) -> float:
    """Estimate the peak memory of a step in bytes: weights, gradients, AdamW's moments, best weights, activations.

    A transformer layer keeps about 16 numbers of its width per token for the backward pass (inputs of four projections,
    q, k, v, two norms, twice the inner width of 4), plus those of attention; with activation checkpointing only its
    input. A decoder's gated layer keeps the inner width three times, and its loss the logits of a chunk. longest:
    tokens of the longest row; slices: processes that a sharded model is split over; packed: see `plan_memory`.
    """
    config = model.config
    width, depth = int(config.hidden_size), int(config.num_hidden_layers)
    inner = int(getattr(config, "intermediate_size", 4 * width))
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if plan.lora:
        trained = min(trained, depth * plan.lora * 2 * (4 * width + 2 * (width + inner)))
    kept_bytes = weights * 4.0
    if plan.load_in_4bit:
        kept_bytes -= sum(layer.weight.numel() for layer in quantizable(model).values()) * (4 - BYTES)
    # Each process loads the full model into the machine's memory before it is sharded or quantized.
    opened = 0.0 if torch.cuda.is_available() else weights * 4.0
    resident = max((kept_bytes + trained * 16) / slices, opened)
    size = 2 if bf16 else 4
    layer = 8 * width + (4 if packed else 2) * inner + _scores(model, bf16, longest)
    kept = depth * width + layer if plan.checkpointing else depth * layer
    if packed:
        return float(resident + plan.micro_tokens * kept * size + _loss_bytes(model, plan, size))
    outputs = 2 * int(config.vocab_size) if "LM" in type(model).__name__ else 0
    return float(resident + plan.micro_tokens * (kept * size + outputs * 4))


def _loss_bytes(model: Any, plan: MemoryPlan, size: int) -> float:
    """Estimate the memory of the loss in chunks: a chunk's logits, blocks in float32, the gradient of the weight."""
    words, width = int(model.config.vocab_size), int(model.config.hidden_size)
    tokens = min(plan.micro_tokens, max(LEAST, LOGITS // words))
    return tokens * words * size + 3 * 4 * BLOCK + (0 if plan.lora else words * width * (4 + size))


def _scores(model: Any, bf16: bool, longest: int) -> float:
    """Estimate the numbers per token that attention of one layer keeps: for each head one per token of the row, L.

    Fused attention keeps none. It is not used for short rows on a CPU (models/encoders/fast_bert.py), nor there with
    dropout, which keeps the numbers once more after dropout.
    """
    config = model.config
    names = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
    drops = any(float(getattr(config, name, 0.0) or 0.0) > 0 for name in names)
    on_cpu = not torch.cuda.is_available()
    short = on_cpu and longest <= (SHORT_ROWS_BF16 if bf16 else SHORT_ROWS)
    if not (short or (drops and on_cpu) or getattr(config, "_attn_implementation", "sdpa") == "eager"):
        return 0.0
    return float(config.num_attention_heads * longest * (2.5 if drops else 1.0))


def _is_installed(plan: MemoryPlan, requested: MemoryPlan) -> bool:
    """Return True unless a plan has adapters or 4 bits that were not requested, and their packages are missing."""
    if plan.load_in_4bit and not requested.load_in_4bit and not is_installed():
        return False
    return not plan.lora or bool(requested.lora) or find_spec("peft") is not None


def _plans(requested: MemoryPlan, longest: int, four_bits: bool) -> Iterator[MemoryPlan]:
    least = max(LEAST_TOKENS, longest)
    sizes = [requested.micro_tokens]
    while sizes[-1] // 2 >= least:
        sizes.append(sizes[-1] // 2)
    means = [(False, 0, False), (True, 0, False), (True, LORA_RANK, False), (True, LORA_RANK, True)]
    for checkpointing, lora, quantized in means if four_bits else means[:-1]:
        for tokens in sizes:
            yield MemoryPlan(
                tokens,
                checkpointing or requested.checkpointing,
                requested.lora or lora,
                requested.load_in_4bit or quantized,
            )


def _changes(plan: MemoryPlan, requested: MemoryPlan) -> str:
    steps = []
    if plan.micro_tokens < requested.micro_tokens:
        steps.append(f"{plan.micro_tokens} tokens per micro-batch")
    if plan.checkpointing and not requested.checkpointing:
        steps.append("activation checkpointing")
    if plan.lora and not requested.lora:
        steps.append(f"LoRA of rank {plan.lora}")
    if plan.load_in_4bit and not requested.load_in_4bit:
        steps.append("the base in 4 bits")
    return ", ".join(steps)


def free_bytes() -> float:
    """Free memory of the GPU, else of the machine or the control group of this process."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    return free_memory()


def reset_peak() -> None:
    """Reset the peak; where the system does not support it, the peak since process start is measured."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peaks() -> dict[str, float]:
    """Return `memory/peak_rss_mib` of this process, and `memory/peak_device_mib` with a GPU."""
    found = {"memory/peak_rss_mib": _peak_rss() / (1 << 20)}
    if torch.cuda.is_available():
        found["memory/peak_device_mib"] = torch.cuda.max_memory_allocated() / (1 << 20)
    return found


def _peak_rss() -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
