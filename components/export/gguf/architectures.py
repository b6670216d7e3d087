"""Architectures of GGUF: their configuration keys, and what a weight becomes on its way into the file.

The keys and the changes of weights are those that llama.cpp's graph of each architecture expects (its
convert_hf_to_gguf.py writes the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raypath.components.core.errors import DataError


@dataclass(frozen=True)
class Architecture:
    """Architecture of GGUF for a model type of transformers."""

    name: str
    permuted: bool = False
    """Rotary embeddings turn neighbouring dimensions, not the two halves of a head: rows of queries and keys move."""
    norm_offset: float = 0.0
    """Added to the weights of norms, which transformers stores as the difference from 1."""
    sliding_every: int = 0
    """Of this many layers all but the last have a sliding window; 0 for architectures without one."""
    large: int = 0
    """Layers of the size for which attention is scaled by the width of the embedding for each head, not by the head."""
    activations: tuple[str, ...] = ("silu",)


_GELU = ("gelu_pytorch_tanh", "gelu")
ARCHITECTURES = {
    "llama": Architecture("llama", permuted=True),
    "mistral": Architecture("llama", permuted=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "gemma": Architecture("gemma", norm_offset=1.0, activations=_GELU),
    "gemma2": Architecture("gemma2", norm_offset=1.0, sliding_every=2, large=46, activations=_GELU),
    "gemma3_text": Architecture("gemma3", norm_offset=1.0, sliding_every=6, large=62, activations=_GELU),
}
"""By `model_type` of transformers."""
SCALED_ROPE = ("linear", "yarn", "llama3")


def architecture_of(model_type: str) -> Architecture:
    """Return the architecture for a model type. Raises DataError for one that the export does not know."""
    found = ARCHITECTURES.get(model_type)
    if found is None:
        known = ", ".join(ARCHITECTURES)
        what = f"the architecture {model_type or 'without a name'} has no GGUF form here; wanted one of {known}"
        raise DataError(what, fix="export it with --to hf and convert it with llama.cpp's convert_hf_to_gguf.py")
    return found


def write_config(writer: Any, config: Any, found: Architecture) -> None:
    """Write the configuration keys. writer: a GGUFWriter. Raises DataError for a configuration without a GGUF form."""
    _check_fixed(config, found)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(context_length(config, found))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(kv_heads(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head_width(config))
    writer.add_key_length(head_width(config))
    writer.add_value_length(head_width(config))
    _write_rope(writer, rope_of(config))
    if local := (getattr(config, "rope_parameters", None) or {}).get("sliding_attention"):
        writer.add_rope_freq_base_swa(float(local["rope_theta"]))
    if found.sliding_every:
        writer.add_sliding_window(config.sliding_window)
    if found.name == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _check_fixed(config: Any, found: Architecture) -> None:
    """Raise DataError where the configuration has other values than llama.cpp's graph, which has no key for them."""
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    scale = config.hidden_size // heads if layers == found.large else head_width(config)
    wanted: dict[str, tuple[Any, ...]] = {
        "hidden_act": found.activations,
        "hidden_activation": found.activations,
        "query_pre_attn_scalar": (scale,),
    }
    if every := found.sliding_every:
        full = [n % every == every - 1 for n in range(layers)]
        wanted["layer_types"] = (["full_attention" if each else "sliding_attention" for each in full],)
    for name, allowed in wanted.items():
        value = getattr(config, name, None)
        if value is not None and value not in allowed:
            what = (
                f"{name}={str(value)[:80]} has no GGUF form here; llama.cpp's {found.name} has {str(allowed[0])[:80]}"
            )
            raise DataError(what, fix="export it with --to hf")


def context_length(config: Any, found: Architecture) -> int:
    """Return the tokens that the exported model reads.

    A sliding window that the architecture has no key for bounds them: within the window attention is the same.
    """
    longest = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    if not window or found.sliding_every or not getattr(config, "use_sliding_window", True):
        return longest
    return min(longest, int(window))


def head_width(config: Any) -> int:
    """Return the dimensions of a head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def kv_heads(config: Any) -> int:
    """Return the number of key and value heads."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def rope_of(config: Any) -> Mapping[str, Any]:
    """Return the parameters of the rotary embedding, of layers with full attention where there are two kinds."""
    found: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    return dict(found.get("full_attention", found))


def _write_rope(writer: Any, rope: Mapping[str, Any]) -> None:
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))
    kind = rope.get("rope_type", "default")
    if kind in ("default", "llama3"):  # the factors of llama3 are a tensor
        return
    if kind not in SCALED_ROPE:
        raise DataError(f"rope scaling {kind} has no GGUF form here", fix=f"wanted one of {', '.join(SCALED_ROPE)}")
    import gguf

    writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
    writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind == "yarn" and "original_max_position_embeddings" in rope:
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))


def rope_factors(config: Any) -> Any:
    """Return the divisors of the rotary frequencies of Llama 3.1's scaling, float32 [head width / 2]; else None."""
    rope = rope_of(config)
    if rope.get("rope_type") != "llama3":
        return None
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    width = head_width(config)
    plain = float(rope["rope_theta"]) ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    return plain / scaled


def converted(name: str, weight: Any, config: Any, found: Architecture) -> Any:
    """Return a weight of transformers as GGUF has it; the same shape. name: in GGUF, such as blk.0.attn_q.weight."""
    if found.permuted and ".attn_q." in name:
        return _neighbours(weight, config.num_attention_heads)
    if found.permuted and ".attn_k." in name:
        return _neighbours(weight, kv_heads(config))
    if found.norm_offset and name.endswith("norm.weight"):
        return weight.float() + found.norm_offset
    return weight


def _neighbours(weight: Any, heads: int) -> Any:
    """Reorder the rows of each head [heads * width, ...] from two halves to pairs: 0, width/2, 1, width/2 + 1, ..."""
    rest = weight.shape[1:]
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *rest).transpose(1, 2).reshape(weight.shape)
