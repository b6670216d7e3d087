"""How much a training step computes, and how fast this machine multiplies matrices."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

SHAPES = {"cpu": (2_048, 384, 1_536), "cuda": (8_192, 8_192, 8_192)}
"""The product that is timed, [a, b] @ [b, c]: on a CPU the largest of MiniLM-L6 in a step of 2,048 tokens, on a GPU one
that fills it."""


@dataclass
class Work:
    """Floating-point operations of a forward and a backward pass."""

    token: float = 0.0
    """For each token."""
    row: float = 0.0
    """For each row: what stands after the pooling."""
    pair: float = 0.0
    """For each pair of tokens of one row: attention."""

    def total(self, rows: float, tokens: float, pairs: float) -> float:
        """For `rows` rows with `tokens` tokens, padding not counted; pairs: the sum of their squared lengths."""
        return self.row * rows + self.token * tokens + self.pair * pairs


def work_of(model: Any) -> Work:
    """What `model`, with its frozen weights, has to compute for a step.

    A matrix of W weights takes 2 W a token forward, 2 W for the gradient of its weights and 2 W for that of its
    input: 6 W (Kaplan et al., Scaling Laws for Neural Language Models, 2020, section 2.1). Frozen weights need no
    gradient, nor does an input that nothing trained stands before. Attention over L tokens of width d takes two
    products of 2 L^2 d a layer forward and twice that backward: 12 L^2 d (Chowdhery et al., PaLM, 2022, appendix B).
    A layer or matrix that is given the first token alone counts once a row. Norms, activations, look-ups and the
    optimizer are left out, as there.
    """
    work, hooks = Work(), []

    def matrix(module: Any, given: Any, made: Any) -> None:
        passes = 1 + module.weight.requires_grad + given[0].requires_grad
        cost = 2 * passes * module.weight.numel()
        if _each_token(given[0]):
            work.token += cost
        else:
            work.row += cost

    def layer(module: Any, given: Any, made: Any) -> None:
        out = made[0] if isinstance(made, tuple) else made
        cost = 4 * model.config.hidden_size * (3 if out.requires_grad else 1)
        if _each_token(out):
            work.pair += cost
        else:
            work.token += cost  # the first token alone looks at all

    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    hooks += [m.register_forward_hook(matrix) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    hooks += [m.register_forward_hook(layer) for m in stack]
    model(input_ids=torch.ones(1, 2, dtype=torch.int64))
    for hook in hooks:
        hook.remove()
    return work


def _each_token(states: torch.Tensor) -> bool:
    """Whether states are [B, L, H] of every token, and not [B, H] or [B, 1, H] of the first."""
    return bool(states.ndim == 3 and states.shape[1] > 1)


def peak(bf16: bool, threads: int, device: str = "cpu", seconds: float = 2.0) -> float:
    """The best rate at which this device has multiplied matrices over `seconds`, in operations a second."""
    torch.set_num_threads(threads)
    a, b, c = SHAPES[device]
    dtype = torch.bfloat16 if bf16 else torch.float32
    left, right = torch.randn(a, b, device=device).to(dtype), torch.randn(b, c, device=device).to(dtype)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        wait()
        started = time.perf_counter()
        for _ in range(5):
            left @ right
        wait()
        best = max(best, 5 / (time.perf_counter() - started))
    return best * 2 * a * b * c
