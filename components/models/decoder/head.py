"""Facts about a decoder's head: how its logits follow from the last hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from raypath.components.core.errors import DataError

TOLERANCE = 1e-3


@dataclass(frozen=True)
class HeadFacts:
    """logits = cap * tanh(scale * product / cap); without a cap (0), scale * product."""

    scale: float = 1.0
    cap: float = 0.0


def head_of(model: Any) -> HeadFacts:
    """Find the facts in the configuration, and compare with the model's own logits. Raises DataError.

    Its attention has to be one of transformers' own.
    """
    config = model.config
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    found = HeadFacts(scale, float(getattr(config, "final_logit_softcapping", None) or 0.0))
    layer = model.get_output_embeddings()
    if layer is None or model.base_model is model or not _agrees(model, layer, found):
        what = f"the head of a {config.model_type} is not a matrix on the last hidden states"
        raise DataError(what, fix="give another base, such as a Llama or a Qwen")
    return found


def _agrees(model: Any, layer: Any, facts: HeadFacts) -> bool:
    """Compare the logits of three tokens. Raises DataError for those that are NaN or infinite."""
    weight, training = layer.weight, model.training
    ids = torch.tensor([[1, 2, 3]], device=weight.device) % int(model.config.vocab_size)
    model.eval()
    with torch.no_grad():
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        wanted = model(input_ids=ids, use_cache=False).logits
        found = layer(states) * facts.scale
        if facts.cap:
            found = torch.tanh(found / facts.cap) * facts.cap
    model.train(training)
    if not (states.isfinite().all() and wanted.isfinite().all()):
        what = f"the outputs of the {model.config.model_type} are NaN or infinite: its weights are damaged"
        raise DataError(what, fix="download or copy the base again")
    return found.shape == wanted.shape and bool(torch.allclose(found, wanted, atol=TOLERANCE, rtol=TOLERANCE))
