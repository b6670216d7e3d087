"""Check that a model's head can be trained on features: the last hidden state of the first token."""

from __future__ import annotations

from typing import Any

import torch

from raypath.components.core.errors import DataError
from raypath.components.models.encoders.fast_bert import replayed_features


def check_head(model: Any) -> None:
    """Raise DataError unless the head of a sequence classifier reads only the state of the first token.

    On a few made-up tokens, the head has to return the same logits for the first states alone as for all of them.
    """
    ids = torch.tensor([[5, 6, 7, 8], [8, 7, 6, 5]], device=model.device) % model.config.vocab_size
    training = model.training
    try:
        with torch.no_grad():
            agrees = _agrees(model.eval(), ids)
    finally:
        model.train(training)
    if not agrees:
        what = f"method=head needs a head that reads only the first token; that of a {model.config.model_type} does not"
        raise DataError(what, fix="set finetune.method=full, or give a base such as a BERT or RoBERTa")


def _agrees(model: Any, ids: torch.Tensor) -> bool:
    """Compare the logits for `ids`, int64 [B, L], with those for the first states of the rows."""
    try:
        full = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        first = model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
        with replayed_features(model):
            found = model(inputs_embeds=first[:, None]).logits
    except (RuntimeError, ValueError, IndexError, AttributeError, TypeError):
        return False
    return found.shape == full.shape and bool(torch.allclose(found, full, atol=1e-5, rtol=1e-4))
