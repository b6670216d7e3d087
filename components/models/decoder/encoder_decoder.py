"""Encoder-decoder over batches of sources and targets, with its loss: the module that its training calls.

A packed batch (packed_batch.py) has each row's source followed by its target, whose tokens are the labels. Here both
are divided and padded to the longest of the batch, since the encoder reads one and the decoder the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raypath.components.core.errors import DataError
from raypath.components.models.decoder.chunked_loss import Head, summed_loss, token_scores
from raypath.components.models.decoder.packed_batch import IGNORED

TOLERANCE, COARSE = 1e-3, 0.03
"""Difference of logits, relative to their norm, that is rounding: in float32, and in 16 bits, where a T5 scales the
last states before the head."""


@dataclass(frozen=True)
class SourceTargetBatch:
    """Batch of B rows: sources [B, S] with their mask, targets [B, T] with theirs, padded on the right; int64, bool."""

    sources: torch.Tensor
    source_mask: torch.Tensor
    targets: torch.Tensor
    target_mask: torch.Tensor


class EncoderDecoder(nn.Module):  # type: ignore[misc]
    """An encoder-decoder of transformers; `forward` has to be called for everything, as wrappers hook into it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.scale = _scale_of(model)

    def forward(self, batch: dict[str, torch.Tensor], weights: torch.Tensor | None = None, scores: bool = False) -> Any:
        """Compute the cross entropy of the target tokens of a batch, summed: a float32 scalar.

        batch: see packed_batch.py. weights: float32 [n], of the n target tokens. scores: instead return their
        log-probabilities, float32 [n], and if each is the most probable token, bool [n]; both in the batch's order.
        """
        rows = divided(batch)
        states = decoder_states(self.model, rows)[rows.target_mask]
        labels = rows.targets[rows.target_mask]
        if scores:
            return token_scores(states, self._head(), labels)
        return summed_loss(states, self._head(), labels, weights)

    def _head(self) -> Head:
        return _head_of(self.model, self.scale)


def divided(batch: dict[str, torch.Tensor]) -> SourceTargetBatch:
    """Divide the rows of a packed batch into sources and targets."""
    ids, starts, labels = batch["input_ids"][0], batch["row_starts"], batch["labels"][0]
    rows = torch.searchsorted(starts, (labels != IGNORED).nonzero()[:, 0], right=True) - 1
    counts = torch.bincount(rows, minlength=len(starts) - 1)
    places = torch.arange(len(ids), device=ids.device)
    row = torch.searchsorted(starts, places, right=True) - 1
    is_target = places >= (starts[1:] - counts)[row]
    return SourceTargetBatch(*_padded(ids[~is_target], starts.diff() - counts), *_padded(ids[is_target], counts))


def _padded(tokens: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows that follow one another. Returns ids [B, L] and the mask of real tokens."""
    places = torch.arange(max(1, int(lengths.max())), device=tokens.device)
    mask = places[None] < lengths[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.int64, device=tokens.device)
    ids[mask] = tokens
    return ids, mask


def decoder_states(model: Any, rows: SourceTargetBatch) -> torch.Tensor:
    """Last hidden states [B, T, H] of the decoder, each of which predicts the target token at its place."""
    start = model.config.decoder_start_token_id
    mask = rows.source_mask.long()
    encoded = model.get_encoder()(input_ids=rows.sources, attention_mask=mask).last_hidden_state
    before = torch.cat([torch.full_like(rows.targets[:, :1], start), rows.targets[:, :-1]], dim=1)
    # A token sees those before it alone, so the padding behind a target needs no mask.
    found: torch.Tensor = model.get_decoder()(
        input_ids=before, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    return found


def _head_of(model: Any, scale: float) -> Head:
    layer, bias = model.get_output_embeddings(), getattr(model, "final_logits_bias", None)
    own = getattr(layer, "bias", None)
    return Head(layer.weight, own if bias is None else bias[0].to(layer.weight.device), scale)


def _scale_of(model: Any) -> float:
    """Return the factor of the last states, which some T5 have, by comparing logits. Raises DataError."""
    kind = model.config.model_type
    if model.get_output_embeddings() is not None and model.config.decoder_start_token_id is not None:
        for scale in (1.0, float(model.config.hidden_size) ** -0.5):
            if _agrees(model, scale):
                return scale
    what = f"the head of a {kind} is not a matrix on the last states of a decoder with a start token"
    raise DataError(what, fix="give another base, such as a T5, a BART or a Marian")


def _agrees(model: Any, scale: float) -> bool:
    """Compare the logits of three tokens with the model's own."""
    device, training = next(model.parameters()).device, model.training
    ids = torch.tensor([[1, 2, 3]], device=device) % int(model.config.vocab_size)
    rows = SourceTargetBatch(ids, torch.ones_like(ids, dtype=torch.bool), ids, torch.ones_like(ids, dtype=torch.bool))
    model.eval()
    try:
        with torch.no_grad():
            before = torch.cat([torch.full_like(ids[:, :1], model.config.decoder_start_token_id), ids[:, :-1]], dim=1)
            wanted = model(input_ids=ids, decoder_input_ids=before, use_cache=False).logits
            head = _head_of(model, scale)
            found = decoder_states(model, rows) @ head.weight.T * scale
            found = found if head.bias is None else found + head.bias
    except (NotImplementedError, TypeError, AttributeError):
        return False
    finally:
        model.train(training)
    if found.shape != wanted.shape:
        return False
    tolerance = TOLERANCE if wanted.dtype == torch.float32 else COARSE
    found, wanted = found.float(), wanted.float()
    return bool((found - wanted).norm() <= tolerance * wanted.norm())
