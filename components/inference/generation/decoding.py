"""Decoding of one batch: prompts padded on the left, one forward pass a token, finished rows dropped."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from raypath.components.inference.generation.engine import Finish, SamplingSettings
from raypath.components.inference.generation.kv_cache import new_cache
from raypath.components.inference.generation.sampling import Sampler

COMPACT = 0.75
"""Share of unfinished rows at which the finished ones are dropped from the batch."""


@dataclass
class Answer:
    """Answer while it is written."""

    limit: int
    """Most tokens."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None

    def add(self, token: int, logprob: float, stop: frozenset[int]) -> None:
        """Append a token; the answer ends with a stop token, or at its limit."""
        if token in stop:
            self.finish = Finish.STOP
            return
        self.ids.append(token)
        self.logprobs.append(logprob)
        if len(self.ids) >= self.limit:
            self.finish = Finish.LENGTH


class Forward:
    """Calls of a model with the arguments that its class has."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._known = set(inspect.signature(model.forward).parameters)

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: Any) -> Any:
        """Return the logits of the last token of each row, float32 [B, V]. ids, positions: int64 [B, new]."""
        given: dict[str, Any] = {"attention_mask": mask, "use_cache": True}
        # The newer name of the argument; the older one warns.
        given["cache" if "cache" in self._known else "past_key_values"] = cache
        if "position_ids" in self._known:
            given["position_ids"] = positions
        if "logits_to_keep" in self._known:
            given["logits_to_keep"] = 1
        return self.model(input_ids=ids, **given).logits[:, -1].float()


def decode(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    repeats: Sequence[int],
    limits: Sequence[int],
    settings: SamplingSettings,
    stop: frozenset[int],
) -> list[Answer]:
    """Return the answers to a batch of prompts.

    Args:
        repeats: See `Sampler`.
        limits: Most tokens of each answer.
        stop: Ids of tokens that end an answer.
    """
    device = forward.model.device
    width, most = max(map(len, prompts)), max(limits)
    ids, mask = _pad_left(prompts, width, most)
    ids, mask = ids.to(device), mask.to(device)
    padded = not bool(mask.all())
    positions = (mask[:, :width].cumsum(dim=1) - 1).clamp(min=0)
    cache = new_cache(forward.model.config, width + most)
    sampler = Sampler(settings, prompts, repeats, forward.model.config.get_text_config(decoder=True).vocab_size)
    answers = [Answer(limit) for limit in limits]
    rows = list(range(len(prompts)))
    for step in range(most):
        # Without padding, attention needs no mask, and takes a faster kernel.
        logits = forward(ids, mask[:, : width + step] if padded else None, positions, cache)
        tokens, logprobs = sampler.draw(logits, step)
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if answers[row].finish is None:
                answers[row].add(token, logprob, stop)
        ids, positions = tokens[:, None], positions[:, -1:] + 1
        left = [n for n, row in enumerate(rows) if answers[row].finish is None]
        if not left:
            break
        if len(left) <= COMPACT * len(rows):
            kept = torch.tensor(left, device=device)
            cache.reorder_cache(kept)
            sampler.keep(left)
            rows = [rows[n] for n in left]
            ids, positions, mask = ids[kept], positions[kept], mask[kept]
    return answers


def _pad_left(prompts: Sequence[Sequence[int]], width: int, more: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids int64 [B, width] and the mask of real tokens int64 [B, width + more], 1 for the tokens to come."""
    ids = torch.zeros((len(prompts), width), dtype=torch.int64)
    mask = torch.ones((len(prompts), width + more), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, : width - len(prompt)] = 0
    return ids, mask
