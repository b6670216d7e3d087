"""Attention implementation of a model: PyTorch's fused one (sdpa), or eager for a class that lacks it."""

from __future__ import annotations

from typing import Any


def attention_of(auto: str, config: Any) -> str:
    """Return `attn_implementation` for a configuration and the transformers Auto class of this name.

    transformers raises for sdpa where a class lacks it, such as DeBERTa and MPNet, and would take what config.json
    names where none is given.
    """
    import transformers

    kind = getattr(transformers, auto)._model_mapping.get(type(config), None)
    return "sdpa" if getattr(kind, "_supports_sdpa", True) else "eager"
