"""Base matrices in 4 bits under LoRA adapters, with the library bitsandbytes.

Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023: the data type NF4 in blocks of 64 weights, whose
scales are quantized too; products in bfloat16. The files of the base stay as they are, and adapters are merged into
those.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.models.trainable.freezing import is_head

BLOCK = 64
"""Weights with a common scale. Rows of a matrix are divided into blocks: bitsandbytes reads blocks that cross rows
wrongly on a CPU."""
BYTES = 0.5 + (1 + 4 / 256) / BLOCK
"""Memory of a weight: 4 bits, and for each block an 8-bit scale, of which 256 share one in float32."""


def is_installed() -> bool:
    """Return True if adapters can be trained on a base in 4 bits here."""
    return find_spec("bitsandbytes") is not None and find_spec("peft") is not None


def quiet_bitsandbytes() -> None:
    """Silence what bitsandbytes logs when peft imports it: that a kernel for inference on a CPU is not installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def check_quantization(rank: int, adapters_alone: bool, shard: bool) -> None:
    """Raise ParamsError for settings that finetune.load_in_4bit does not go with, or without bitsandbytes.

    rank: of LoRA; adapters_alone: the task trains nothing else; shard: FSDP2.
    """
    if not adapters_alone:
        what = "finetune.load_in_4bit is for the tasks text_generation and preference"
        raise ParamsError(what, fix="leave it out, or set finetune.lora, finetune.gradient_checkpointing")
    if not rank:
        raise ParamsError("finetune.load_in_4bit trains adapters, and finetune.lora is 0", fix="set finetune.lora=16")
    if shard:
        what = "finetune.load_in_4bit does not work with finetune.shard: matrices in 4 bits cannot be split"
        raise ParamsError(what, fix="set one of them to false")
    if find_spec("bitsandbytes") is None:
        what = "finetune.load_in_4bit needs the Python package bitsandbytes"
        raise ParamsError(what, fix="pip install 'raypath[qlora]'")


def quantizable(model: Any) -> dict[str, Any]:
    """Return the linear layers that 4 bits are for by name: all but the head, adapters, and rows of other lengths than
    a multiple of BLOCK."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear
        and not is_head(model, name)
        and "lora_" not in name
        and module.in_features % BLOCK == 0
    }


def quantize(model: Any, device: Any, dtype: torch.dtype) -> None:
    """Replace the matrices of a model on the CPU by ones in 4 bits on the device, one after another.

    dtype: of products. Raises DataError for a model without such layers.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    layers = quantizable(model)
    if not layers:
        what = f"this {model.config.model_type} has no linear layers that can be kept in 4 bits"
        raise DataError(what, fix="set finetune.load_in_4bit=false, or give another base, such as a Llama or a Qwen")
    for name, layer in layers.items():
        made = Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, dtype, device="meta")
        weight = layer.weight.data.to(dtype)
        made.weight = Params4bit(weight, blocksize=BLOCK, compress_statistics=True, quant_type="nf4", module=made).to(
            device
        )
        if layer.bias is not None:
            made.bias = torch.nn.Parameter(layer.bias.data.to(device), requires_grad=False)
        # In a validation pass on a CPU it would otherwise pack the matrices in a form that has no gradient.
        made.support_avx512bf16_for_cpu = False
        made.train(layer.training)
        above, _, own = name.rpartition(".")
        setattr(model.get_submodule(above), own, made)
        layer.weight = None


def quantized_weights(model: Any) -> int:
    """Number of weights that are in 4 bits."""
    states = (getattr(module, "quant_state", None) for module in model.modules())
    return sum(int(state.shape.numel()) for state in states if state is not None)
