"""Cross entropy of a language model's head in chunks of tokens: the logits of all tokens never exist at once.

`summed_loss` computes its gradients in the forward pass, with each chunk's logits at hand. Those of `token_scores`, for
objectives whose gradient depends on all tokens of a row, are each token's times a number that the backward pass brings:
what they have in common is computed in the forward pass too, and only where the head is trained and many logits would
have to be kept, they are computed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from raypath.components.models.decoder.projection import compute_dtype

LOGITS = 1 << 25
"""Logits of a chunk, at most; those of LEAST tokens where the vocabulary is larger."""
LEAST = 512
KEPT = 1 << 26
"""Logits that are kept until the backward pass, at most."""
BLOCK = 1 << 21
"""Logits that are computed in float32 at a time."""


@dataclass(frozen=True)
class Head:
    """Head of a language model: logits = softcap(scale * (states @ weight^T + bias)).

    weight [V, H]; bias [V] or None; softcap(x) = cap * tanh(x / cap) where `cap` is not 0.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    cap: float = 0.0


def summed_loss(states: torch.Tensor, head: Head, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Cross entropy of n tokens, summed, a float32 scalar. states [n, H]; labels int64 [n]; weights float32 [n] or
    None."""
    if not torch.is_grad_enabled():
        lost = -token_scores(states, head, labels)[0]
        return (lost if weights is None else lost * weights).sum()
    found: torch.Tensor = _SummedLoss.apply(states, head.weight, head.bias, labels, weights, head)
    return found


def token_scores(states: torch.Tensor, head: Head, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each of n tokens, float32 [n], and whether it is the most probable one, bool [n]."""
    log_p, right = _TokenScores.apply(states, head.weight, head.bias, labels, head, torch.is_grad_enabled())
    return log_p, right


class _SummedLoss(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, states: Any, weight: Any, bias: Any, labels: Any, weights: Any, head: Head) -> Any:
        chunks = _Chunks(states, weight, bias, head)
        gradients = _Gradients(ctx.needs_input_grad, states, weight, bias)
        total = states.new_zeros((), dtype=torch.float32)
        for rows in chunks.rows:
            logits = chunks.logits(rows)
            for some in _blocks(logits):
                at = slice(rows.start + some.start, rows.start + some.stop)
                raw, log_p = chunks.log_softmax(logits[some])
                picked = log_p.gather(1, labels[at, None])[:, 0]
                share = None if weights is None else weights[at]
                total -= (picked if share is None else picked * share).sum()
                gradient = _difference(log_p, labels[at], share)
                logits[some] = chunks.through(gradient, raw)
            gradients.add(rows, logits, chunks)
        ctx.save_for_backward(*gradients.found(states, weight, bias))
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        # In place: the gradient of the weight is as large as the weight.
        found = [None if each is None else each.mul_(upstream[0].to(each.dtype)) for each in ctx.saved_tensors]
        return (*found, None, None, None)


class _TokenScores(torch.autograd.Function):  # type: ignore[misc]
    """Scores of tokens. `ctx.kept` has the gradients of the log-probabilities by the logits, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, states: Any, weight: Any, bias: Any, labels: Any, head: Head, learns: bool) -> Any:
        chunks = _Chunks(states, weight, bias, head)
        trained, wanted = (learns and any(ctx.needs_input_grad[first:3]) for first in (1, 0))
        keeps = trained and len(states) * len(weight) <= KEPT
        log_p = states.new_empty(len(states), dtype=torch.float32)
        right = torch.empty(len(states), dtype=torch.bool, device=states.device)
        gradients = _Gradients((wanted and not trained, False, False), states, weight, bias)
        kept = []
        for rows in chunks.rows:
            logits = chunks.logits(rows)
            for some in _blocks(logits):
                at = slice(rows.start + some.start, rows.start + some.stop)
                bent, found = chunks.log_softmax(logits[some])
                log_p[at] = found.gather(1, labels[at, None])[:, 0]
                right[at] = found.argmax(1) == labels[at]
                if wanted and (keeps or not trained):
                    logits[some] = chunks.through(_difference(found, labels[at], None), bent)
            if keeps:
                kept.append(logits)
            gradients.add(rows, logits, chunks)
        ctx.head, ctx.dtype, ctx.chunks = head, chunks.dtype, chunks if keeps else None
        ctx.kept, ctx.trained = kept, trained
        ctx.save_for_backward(states, weight, bias, labels, gradients.states)
        ctx.mark_non_differentiable(right)
        return log_p, right

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        states, weight, bias, labels, ready = ctx.saved_tensors
        share = -upstream[0]  # the gradient of a log-probability is that of the cross entropy, negated
        if not ctx.trained:
            return (ready * share[:, None].to(ready.dtype), None, None, None, None, None)
        with torch.autocast(states.device.type, enabled=False):
            chunks = ctx.chunks or _Chunks(states, weight, bias, ctx.head, ctx.dtype)
            gradients = _Gradients(ctx.needs_input_grad, states, weight, bias)
            for n, rows in enumerate(chunks.rows):
                if ctx.kept:
                    logits, ctx.kept[n] = ctx.kept[n], None
                else:
                    logits = chunks.logits(rows)
                    for some in _blocks(logits):
                        at = slice(rows.start + some.start, rows.start + some.stop)
                        bent, log_p = chunks.log_softmax(logits[some])
                        logits[some] = chunks.through(_difference(log_p, labels[at], None), bent)
                gradients.add(rows, logits, chunks, share[rows])
        return (*gradients.found(states, weight, bias), None, None, None)


class _Chunks:
    """Logits by chunk, in the dtype of autocast or of the states."""

    def __init__(self, states: Any, weight: Any, bias: Any, head: Head, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or compute_dtype(states)
        self.states, self.weight = states.to(self.dtype), weight.to(self.dtype)
        self.bias = None if bias is None else bias.to(self.dtype)
        self.head = head
        size = max(LEAST, LOGITS // len(weight))
        self.rows = [slice(start, min(start + size, len(states))) for start in range(0, len(states), size)]

    def logits(self, rows: slice) -> torch.Tensor:
        """Product of the states and the weight, without scale and cap, [rows, V]."""
        with torch.autocast(self.states.device.type, enabled=False):
            found = self.states[rows] @ self.weight.T
        return found if self.bias is None else found.add_(self.bias)

    def log_softmax(self, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(tanh(x / cap) where there is a cap, else an empty tensor; log-probabilities), float32."""
        x = raw.float()
        if self.head.scale != 1.0:
            x = x * self.head.scale
        bent = x.new_empty(0)
        if self.head.cap:
            bent = torch.tanh(x / self.head.cap)
            x = bent * self.head.cap
        return bent, torch.log_softmax(x, dim=1)

    def through(self, gradient: torch.Tensor, bent: torch.Tensor) -> torch.Tensor:
        """Gradient of the product by that of the logits."""
        if self.head.cap:
            gradient = gradient * (1 - bent * bent)
        return gradient * self.head.scale if self.head.scale != 1.0 else gradient


class _Gradients:
    """Gradients of states, weight and bias, those that are needed."""

    def __init__(self, needed: tuple[bool, ...], states: Any, weight: Any, bias: Any) -> None:
        self.states = torch.empty_like(states) if needed[0] else None
        self.needs_weight = needed[1]
        self.weight: torch.Tensor | None = None
        self.bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needed[2] else None

    def add(self, rows: slice, gradient: torch.Tensor, chunks: _Chunks, share: torch.Tensor | None = None) -> None:
        """Add those of a chunk. gradient [rows, V]: of the logits; each token's is multiplied by `share`, [rows]."""
        with torch.autocast(gradient.device.type, enabled=False):
            inputs = chunks.states[rows]
            if share is not None:
                inputs = inputs * share[:, None].to(inputs.dtype)
            if self.states is not None:
                found = gradient @ chunks.weight
                self.states[rows] = found if share is None else found * share[:, None].to(found.dtype)
            if self.needs_weight and self.weight is None:
                self.weight = (gradient.T @ inputs).float()
            elif self.weight is not None:
                if gradient.dtype == torch.float32:
                    self.weight.addmm_(gradient.T, inputs)
                else:
                    self.weight += gradient.T @ inputs
            if self.bias is not None and share is not None:
                self.bias += share.float() @ gradient.float()
            elif self.bias is not None:
                self.bias += gradient.sum(0, dtype=torch.float32)

    def found(self, states: Any, weight: Any, bias: Any) -> list[Any]:
        if self.needs_weight and self.weight is None:  # no token is in the loss
            self.weight = torch.zeros_like(weight)
        pairs = ((self.states, states), (self.weight, weight), (self.bias, bias))
        return [None if mine is None else mine.to(like.dtype) for mine, like in pairs]


def _difference(log_p: torch.Tensor, labels: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
    """Gradient of the cross entropy by the logits: (p - onehot) * share, [n, V]; overwrites log_p."""
    gradient = log_p.exp_()
    gradient[torch.arange(len(labels), device=labels.device), labels] -= 1
    return gradient if share is None else gradient.mul_(share[:, None])


def _blocks(logits: torch.Tensor) -> list[slice]:
    size = max(1, BLOCK // logits.shape[1])
    return [slice(start, min(start + size, len(logits))) for start in range(0, len(logits), size)]
