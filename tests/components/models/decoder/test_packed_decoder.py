"""A packed batch gives the loss and the gradients of padded rows in plain transformers, for decoders of many kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raypath.components.models.decoder import packed_attention, row_layout
from raypath.components.models.decoder.packed_batch import IGNORED, packed_rows, rows_of_learned, token_weights
from raypath.components.models.decoder.packed_decoder import PackedDecoder
from raypath.components.training.batches.token_dataset import TokenDataset
from tests.tiny_decoders import KINDS, PADDED, WORDS, tiny_decoder

LENGTHS = (7, 1, 150, 12, 7, 140, 31)
"""Two rows are longer than those whose attention is written out."""
SHORT = (7, 1, 90, 12, 7, 85, 31)
FAST = frozenset({"llama", "qwen2", "qwen3", "mistral with a window", "granite with a scale"})
"""Kinds whose layers are computed by other code than that of transformers."""


def _rows(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> TokenDataset:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(3, WORDS, offsets[-1]).astype(np.int32)
    return TokenDataset(ids, offsets, np.zeros(len(lengths), np.int64), loss_mask=rng.random(offsets[-1]) < 0.6)


def _plain_loss(model: Any, rows: TokenDataset) -> torch.Tensor:
    """Cross entropy of tokens in the loss, summed, by transformers over padded rows."""
    batch = rows.batch(np.arange(len(rows)), 0)
    labels = torch.full_like(batch["input_ids"], IGNORED)
    for n, (start, end) in enumerate(zip(rows.offsets, rows.offsets[1:], strict=False)):
        learned = torch.from_numpy(rows.loss_mask[start:end])
        labels[n, : end - start] = torch.where(learned, batch["input_ids"][n, : end - start], IGNORED)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


def _gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("kind", "lengths"), [*((kind, LENGTHS) for kind in KINDS), *((kind, SHORT) for kind in sorted(FAST))]
)
def test_packing_changes_neither_loss_nor_gradients(kind: str, lengths: tuple[int, ...]) -> None:
    model, rows = tiny_decoder(kind), _rows(lengths)
    plain = _plain_loss(model, rows)
    wanted = _gradients(model, plain)
    decoder = PackedDecoder(model)
    assert decoder.packs == (kind not in PADDED)
    assert any(
        type(module).__name__.endswith("Attention") and "forward" in vars(module) for module in model.modules()
    ) == (kind in FAST)
    batch = packed_rows(rows)
    learned = int((batch["labels"] != IGNORED).sum())
    loss = decoder(batch)
    assert loss.item() / learned == pytest.approx(plain.item() / learned, abs=1e-5)
    found = _gradients(model, loss)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name] / learned, gradient / learned, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["llama", "gemma2 with a cap", "mamba"])
def test_scores_give_the_loss_and_its_gradients(kind: str) -> None:
    decoder, batch = PackedDecoder(tiny_decoder(kind)), packed_rows(_rows())
    loss = decoder(batch)
    wanted = _gradients(decoder, loss)
    log_p, right = decoder(batch, scores=True)
    assert (-log_p.sum()).item() == pytest.approx(loss.item(), rel=1e-5)
    assert 0 <= right.float().mean() < 0.2
    found = _gradients(decoder, -log_p.sum())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-4)


def test_a_row_counts_by_its_weight() -> None:
    weights = np.array([0, 1, 2, 0, 0.5, 0, 1], np.float32)
    rows = _rows()
    weighted = TokenDataset(rows.ids, rows.offsets, rows.targets, weights=weights, loss_mask=rows.loss_mask)
    decoder = PackedDecoder(tiny_decoder("llama"))
    batch = packed_rows(weighted)
    loss = decoder(batch, token_weights(batch))
    alone = [decoder(packed_rows(rows.subset(np.array([n])))).item() for n in range(len(rows))]
    assert loss.item() == pytest.approx(float(np.dot(alone, weights)), rel=1e-5)


def test_a_batch_starts_anew_in_each_row_and_learns_what_the_mask_marks() -> None:
    ids = np.array([5, 6, 7, 8, 9, 10], np.int32)
    mask = np.array([0, 1, 1, 1, 0, 1], bool)
    batch = packed_rows(TokenDataset(ids, np.array([0, 3, 3, 6]), np.zeros(3, np.int64), loss_mask=mask))
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2]]
    assert batch["labels"].tolist() == [[6, 7, IGNORED, IGNORED, 10, IGNORED]], "8 has no token before it"
    assert rows_of_learned(batch).tolist() == [0, 0, 2]
    assert batch["row_starts"].tolist() == [0, 3, 3, 6]


def test_rows_of_similar_length_are_computed_together() -> None:
    starts = torch.tensor([0, 100, 200, 203, 300, 302])
    layout = row_layout.row_layout(starts)
    assert [(group.rows, group.length) for group in layout.groups] == [(3, 112), (2, 16)]
    everything = torch.cat([group.index for group in layout.groups])
    assert everything[layout.place].tolist() == list(range(302))
    assert [int((~group.padding).sum()) for group in layout.groups] == [297, 5]


def test_no_mask_of_all_tokens_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention of 40 rows takes no tensor near T x T, by the largest one that any operation returns."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            for each in made if isinstance(made, tuple | list) else (made,):
                largest = max(largest, each.numel() if isinstance(each, torch.Tensor) else 0)
            return made

    decoder = PackedDecoder(tiny_decoder("mistral with a window"))
    batch = packed_rows(_rows((20,) * 40))
    with Sizes():
        decoder(batch).backward()
    assert largest <= 40 * 4 * 32 * 32, "rows of 20 tokens, rounded up, for four heads"


def test_a_decoder_whose_attention_is_of_another_kind_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: Any, **__: Any) -> Any:
        raise NotImplementedError

    monkeypatch.setattr(packed_attention, "packed_attention", other)
    model, rows = tiny_decoder("llama"), _rows()
    decoder = PackedDecoder(model)
    assert not decoder.packs
    assert model.config._attn_implementation == "eager"
    assert decoder(packed_rows(rows)).item() == pytest.approx(_plain_loss(model, rows).item(), rel=1e-5)
