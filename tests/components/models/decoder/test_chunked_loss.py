"""Cross entropy in chunks: the loss and the gradients of torch's own, with few logits at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from raypath.components.models.decoder import chunked_loss
from raypath.components.models.decoder.chunked_loss import Head, summed_loss, token_scores

TOKENS, WIDTH, WORDS = 37, 16, 50


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "LEAST", 8)
    monkeypatch.setattr(chunked_loss, "LOGITS", 1)
    monkeypatch.setattr(chunked_loss, "BLOCK", 3 * WORDS)


def _given(bias: bool = False) -> tuple[Any, ...]:
    torch.manual_seed(0)
    states = torch.randn(TOKENS, WIDTH, requires_grad=True)
    weight = torch.randn(WORDS, WIDTH, requires_grad=True)
    return states, weight, torch.randn(WORDS, requires_grad=True) if bias else None, torch.randint(0, WORDS, (TOKENS,))


def _plain(states: Any, weight: Any, bias: Any, labels: Any, scale: float, cap: float) -> torch.Tensor:
    logits = torch.nn.functional.linear(states, weight, bias) * scale
    if cap:
        logits = cap * torch.tanh(logits / cap)
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


@pytest.mark.parametrize(("scale", "cap", "bias"), [(1.0, 0.0, False), (0.5, 4.0, True), (2.0, 0.0, True)])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradients_are_those_of_all_logits(scale: float, cap: float, bias: bool, weighted: bool) -> None:
    states, weight, offset, labels = _given(bias)
    shares = torch.rand(TOKENS) if weighted else None
    each = _plain(states, weight, offset, labels, scale, cap)
    wanted = (each if shares is None else each * shares).sum()
    leaves = [leaf for leaf in (states, weight, offset) if leaf is not None]
    gradients = torch.autograd.grad(wanted * 0.3, leaves)
    found = summed_loss(states, Head(weight, offset, scale, cap), labels, shares)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found * 0.3, leaves), gradients, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(summed_loss(states, Head(weight, offset, scale, cap), labels, shares), wanted)


def _count_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each product of states and head, from now on."""
    sizes: list[int] = []
    product = chunked_loss._Chunks.logits

    def watched(chunks: Any, rows: slice) -> torch.Tensor:
        found = product(chunks, rows)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(chunked_loss._Chunks, "logits", watched)
    return sizes


@pytest.mark.parametrize(("kept", "products"), [(WORDS * TOKENS, 5), (WORDS * TOKENS - 1, 10)])
def test_scores_have_a_gradient_of_their_own_for_each_token(
    kept: int, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few logits are kept for the backward pass, many are computed again."""
    monkeypatch.setattr(chunked_loss, "KEPT", kept)
    sizes = _count_products(monkeypatch)
    states, weight, offset, labels = _given(bias=True)
    shares = torch.randn(TOKENS)
    wanted = -_plain(states, weight, offset, labels, 0.5, 4.0)
    gradients = torch.autograd.grad((wanted * shares).sum(), [states, weight, offset])
    log_p, right = token_scores(states, Head(weight, offset, 0.5, 4.0), labels)
    torch.testing.assert_close(log_p, wanted)
    logits = torch.nn.functional.linear(states, weight, offset)
    assert torch.equal(right, logits.argmax(1) == labels)
    found = torch.autograd.grad((log_p * shares).sum(), [states, weight, offset])
    torch.testing.assert_close(found, gradients, atol=1e-5, rtol=1e-4)
    assert len(sizes) == products


def test_scores_by_a_frozen_head_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "KEPT", 0)
    sizes = _count_products(monkeypatch)
    states, weight, _, labels = _given()
    shares = torch.randn(TOKENS)
    wanted = torch.autograd.grad((-_plain(states, weight, None, labels, 0.5, 4.0) * shares).sum(), states)[0]
    log_p = token_scores(states, Head(weight.detach(), None, 0.5, 4.0), labels)[0]
    found = torch.autograd.grad((log_p * shares).sum(), states)[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert len(sizes) == 5


def test_a_frozen_head_costs_no_gradient() -> None:
    states, weight, _, labels = _given()
    frozen = weight.detach()
    summed_loss(states, Head(frozen), labels, None).backward()
    wanted = torch.autograd.grad(_plain(states, weight, None, labels, 1.0, 0.0).sum(), states)[0]
    torch.testing.assert_close(states.grad, wanted, atol=1e-5, rtol=1e-4)
    assert frozen.grad is None


def test_in_bfloat16_gradients_are_near_and_in_float32() -> None:
    states, weight, _, labels = _given()
    wanted = torch.autograd.grad(_plain(states, weight, None, labels, 0.2, 0.0).sum(), [states, weight])
    with torch.autocast("cpu", torch.bfloat16):
        loss = summed_loss(states, Head(weight, scale=0.2), labels, None)
    found = torch.autograd.grad(loss, [states, weight])
    assert loss.dtype == torch.float32
    for mine, other in zip(found, wanted, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - other).norm() < 0.02 * other.norm()


def test_no_more_logits_than_those_of_a_chunk_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = _count_products(monkeypatch)
    states, weight, _, labels = _given()
    summed_loss(states, Head(weight), labels, None).backward()
    assert sizes == [8, 8, 8, 8, 5]


def test_without_learned_tokens_the_loss_is_0_and_has_gradients() -> None:
    states, weight, _, labels = _given()
    loss = summed_loss(states[:0], Head(weight), labels[:0], None)
    loss.backward()
    assert loss.item() == 0.0
    assert float(weight.grad.abs().sum()) == 0.0
