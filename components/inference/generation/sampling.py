"""Choice of the next token: repetition penalty, temperature, top-k, top-p and min-p, as in transformers.

A row's random numbers depend on the seed and its prompt, never on the rows beside it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from raypath.components.core.arrays import Array
from raypath.components.inference.generation.engine import SamplingSettings

NUCLEUS = 1_024
"""Tokens that are sorted for top-p; all of them only where these do not reach it."""


class Sampler:
    """Draws the tokens of a batch of B rows."""

    def __init__(
        self, settings: SamplingSettings, prompts: Sequence[Sequence[int]], repeats: Sequence[int], vocabulary: int
    ) -> None:
        """Args: repeats: how often each prompt occurred before it in the same call; equal prompts differ by it."""
        self._settings = settings
        self._numbers = np.stack([random_numbers(settings, *each) for each in zip(prompts, repeats, strict=True)])
        self._seen = _seen(prompts, vocabulary) if settings.repetition_penalty != 1 else None

    def draw(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens int64 [B] and their log-probabilities float32 [B]. logits: float32 [B, V]."""
        scores = logits
        if self._seen is not None:
            self._seen = self._seen.to(logits.device)
            scores = penalize(logits, self._seen, self._settings.repetition_penalty)
        if self._settings.temperature == 0:
            tokens = scores.argmax(dim=-1)
        else:
            probabilities, ids = candidates(scores, self._settings)
            uniform = torch.from_numpy(self._numbers[:, step]).to(logits.device)
            tokens = pick(probabilities, uniform)
            tokens = tokens if ids is None else ids.gather(1, tokens[:, None])[:, 0]
        if self._seen is not None:
            self._seen.scatter_(1, tokens[:, None], True)
        chosen = logits.gather(1, tokens[:, None])[:, 0]
        return tokens, chosen - torch.logsumexp(logits, dim=-1)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self._numbers = self._numbers[list(rows)]
        if self._seen is not None:
            self._seen = self._seen[list(rows)]


def random_numbers(settings: SamplingSettings, prompt: Sequence[int], repeat: int) -> Array:
    """Return a number in [0, 1) for each step of a prompt, float64 [max_new_tokens]."""
    if settings.temperature == 0:
        return np.zeros(0)
    digest = hashlib.sha256(np.asarray(prompt, np.int64).tobytes()).digest()
    seed = [settings.seed, repeat, *np.frombuffer(digest, np.uint32).tolist()]
    return np.random.default_rng(seed).random(settings.max_new_tokens)


def count_repeats(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return for each prompt how often the same one occurs before it."""
    before: Counter[tuple[int, ...]] = Counter()
    found = []
    for prompt in map(tuple, prompts):
        found.append(before[prompt])
        before[prompt] += 1
    return found


def penalize(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Lower the logits of tokens that were seen, bool [B, V] (Keskar et al., CTRL, 2019, section 4.1)."""
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def candidates(scores: torch.Tensor, settings: SamplingSettings) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return probabilities [B, C], not normalized, 0 for those left out, and the token ids int64 [B, C].

    The ids are None where all tokens are candidates, in their order. With top-p, Holtzman et al., The Curious Case of
    Neural Text Degeneration, 2019; with min-p, Nguyen et al., Turning Up the Heat, 2024.
    """
    probabilities = torch.softmax(scores.float() / settings.temperature, dim=-1)
    ids: torch.Tensor | None = None
    if settings.top_k:
        probabilities, ids = probabilities.topk(min(settings.top_k, probabilities.shape[1]), dim=-1)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    if settings.top_p < 1:
        probabilities, order = _nucleus(probabilities, settings.top_p)
        ids = order if ids is None else ids.gather(1, order)
    if settings.min_p:
        least = settings.min_p * probabilities.amax(dim=-1, keepdim=True)
        probabilities = torch.where(probabilities >= least, probabilities, 0.0)
    return probabilities, ids


def pick(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw a column of each row by inverting its distribution, int64 [B]. uniform: float64 [B] in [0, 1)."""
    sums = probabilities.double().cumsum(dim=-1)
    target = uniform[:, None] * sums[:, -1:]
    found = torch.searchsorted(sums, target, right=True)[:, 0]
    # Rounding may lead past the last column, or the last with a probability.
    last = probabilities.shape[1] - 1 - (probabilities.flip(-1) > 0).int().argmax(dim=-1)
    return torch.minimum(found, last)


def _nucleus(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities in falling order, 0 for those outside of the nucleus, and their columns."""
    size = probabilities.shape[1]
    values, order = probabilities.topk(min(NUCLEUS, size), dim=-1)
    if values.shape[1] < size and bool((values.sum(dim=-1) < top_p).any()):
        values, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = values.cumsum(dim=-1) - values
    return torch.where(before < top_p, values, 0.0), order


def _seen(prompts: Sequence[Sequence[int]], vocabulary: int) -> torch.Tensor:
    seen = torch.zeros((len(prompts), vocabulary), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        seen[row, torch.tensor(prompt)] = True
    return seen
