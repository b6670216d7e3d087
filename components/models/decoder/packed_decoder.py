"""Decoder over packed batches, with its loss: the module that a training of a language model calls."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from raypath.components.models.decoder import packed_attention
from raypath.components.models.decoder.chunked_loss import Head, summed_loss, token_scores
from raypath.components.models.decoder.fast_layers import use_fast_layers, use_own_layers
from raypath.components.models.decoder.head import head_of
from raypath.components.models.decoder.packed_batch import IGNORED
from raypath.components.models.decoder.row_layout import TOKENS, expand, rounded_up, row_layout

TOLERANCE = 1e-3
"""Largest relative difference of states between rows in one batch and alone, for attention that stays inside rows."""


class PackedDecoder(nn.Module):  # type: ignore[misc]
    """A causal language model of transformers; `forward` has to be called for everything, as wrappers hook into it.

    packs: whether attention stays inside the rows of a packed batch. Other decoders, such as recurrent ones, get rows
    with padding; results are the same. device: that the model will be on, None for the one it is on.
    """

    def __init__(self, model: Any, device: torch.device | None = None) -> None:
        super().__init__()
        self.model = model
        self.facts = head_of(model)
        self.packs = use_packed_attention(model, device or next(model.parameters()).device)
        self._frozen: torch.Tensor | None = None

    def forward(self, batch: dict[str, torch.Tensor], weights: torch.Tensor | None = None, scores: bool = False) -> Any:
        """Compute the cross entropy of the tokens in the loss of a batch, summed: a float32 scalar.

        batch: see packed_batch.py. weights: float32 [n], of the n tokens in the loss. scores: instead return their
        log-probabilities, float32 [n], and if each is the most probable token, bool [n]; both in the batch's order.
        """
        states = self._states(batch)
        labels = batch["labels"][0]
        chosen = (labels != IGNORED).nonzero()[:, 0]
        count, rest = len(chosen), _rest(len(chosen), chosen)
        if rest:
            chosen = torch.cat([chosen, chosen.new_zeros(rest)])
        states, labels = states.index_select(0, chosen), labels[chosen].clamp(min=0)
        if scores:
            log_p, right = token_scores(states, self._head(), labels)
            return log_p[:count], right[:count]
        if rest:
            weights = states.new_ones(count, dtype=torch.float32) if weights is None else weights
            weights = torch.cat([weights, weights.new_zeros(rest)])
        return summed_loss(states, self._head(), labels, weights)

    def _head(self) -> Head:
        layer = self.model.get_output_embeddings()
        weight, device = layer.weight, layer.weight.device.type
        if torch.is_autocast_enabled(device) and not weight.requires_grad and not hasattr(weight, "device_mesh"):
            if self._frozen is None:
                self._frozen = weight.detach().to(torch.get_autocast_dtype(device))
            weight = self._frozen
        return Head(weight, getattr(layer, "bias", None), self.facts.scale, self.facts.cap)

    def _states(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Last hidden states of all tokens, [T, H]."""
        if self.packs:
            return packed_states(self.model.base_model, batch)
        return padded_states(self.model.base_model, batch)


def packed_states(base: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Last hidden states [T, H] of a model whose attention stays inside rows."""
    ids, positions = batch["input_ids"], batch["position_ids"]
    count = ids.shape[1]
    rest = _rest(count, ids)
    if rest:
        ids, positions = (torch.cat([each, each.new_zeros(1, rest)], dim=1) for each in (ids, positions))
    layout = row_layout(batch["row_starts"], batch.get("shared"), rest)
    found = base(input_ids=ids, position_ids=positions, use_cache=False, row_layout=layout)
    states: torch.Tensor = found.last_hidden_state[0, :count]
    return states


def _rest(count: int, like: torch.Tensor) -> int:
    """Return how many tokens round `count` up on a CPU, see row_layout.py."""
    return rounded_up(count, TOKENS) - count if like.device.type == "cpu" else 0


def padded_states(base: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Last hidden states [T, H] of any decoder: its rows are padded to the longest."""
    starts, tokens, own = batch["row_starts"], batch["input_ids"][0], None
    lengths = starts.diff()
    if "shared" in batch:
        index, own = expand(starts, batch["shared"])
        tokens, lengths = tokens[index], lengths + batch["shared"]
    places = torch.arange(int(lengths.max()), device=starts.device)
    mask = places[None] < lengths[:, None]  # [B, L]
    ids = torch.zeros(mask.shape, dtype=torch.int64, device=starts.device)
    ids[mask] = tokens
    found = base(input_ids=ids, attention_mask=mask.long(), use_cache=False)
    states: torch.Tensor = found.last_hidden_state[mask]
    return states if own is None else states[own]


def use_packed_attention(model: Any, device: torch.device) -> bool:
    """Make attention of a decoder stay inside rows. Return False, and change nothing, where that is not possible.

    Three short rows are computed in one batch and with padding; the states have to agree. For training on a CPU
    (`device`), so do those of layers that are replaced by faster ones (fast_layers.py).
    """
    types = set(getattr(model.config, "layer_types", None) or ()) - packed_attention.KNOWN
    if types or not type(model)._can_set_attn_implementation():
        return False
    packed_attention.register()
    before = model.config._attn_implementation
    batch = _three_rows(model)
    with _quiet(model):
        wanted = padded_states(model.base_model, batch)
        model.set_attn_implementation(packed_attention.NAME)
        if not _agrees(model, batch, wanted):
            model.set_attn_implementation(before)
            return False
        if device.type == "cpu":
            changed = use_fast_layers(model)
            if not _agrees(model, batch, wanted):
                use_own_layers(changed)
    return True


def _three_rows(model: Any) -> dict[str, torch.Tensor]:
    lengths = torch.tensor([5, 2, 6])
    batch = {
        "input_ids": (torch.arange(13)[None] * 7 + 3) % int(model.config.vocab_size),
        "position_ids": torch.cat([torch.arange(n) for n in lengths.tolist()])[None],
        "row_starts": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
    }
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}


def _agrees(model: Any, batch: dict[str, torch.Tensor], wanted: torch.Tensor) -> bool:
    """Compare the states of a packed batch."""
    try:
        found = packed_states(model.base_model, batch)
    except (NotImplementedError, TypeError, KeyError, RuntimeError, ValueError, AttributeError):
        return False
    largest = float(wanted.abs().max().clamp(min=1.0))
    return found.shape == wanted.shape and float((found - wanted).abs().max()) <= TOLERANCE * largest


@contextlib.contextmanager
def _quiet(model: Any) -> Any:
    """Compute without dropout and gradients."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
