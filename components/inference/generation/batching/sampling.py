"""Choice of the next token: penalties, temperature, top-k, top-p and min-p, as in transformers.

A row's random numbers depend on the seed and its prompt, never on the rows beside it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raypath.components.core.arrays import Array
from raypath.components.inference.generation.batching.penalties import Penalties
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.inference.generation.streaming_engine import TopTokens

NUCLEUS = 1_024
"""Tokens that are sorted for top-p; all of them only where these do not reach it."""


@dataclass
class Drawn:
    """Tokens of one step. tokens: int64 [B]; logprobs: float32 [B]; top: of each row, see `SamplingSettings`."""

    tokens: torch.Tensor
    logprobs: torch.Tensor
    top: list[TopTokens]


class Sampler:
    """Draws the tokens of a batch of B rows, each with settings of its own."""

    def __init__(
        self,
        settings: Sequence[SamplingSettings],
        prompts: Sequence[Sequence[int]],
        repeats: Sequence[int],
        vocabulary: int,
    ) -> None:
        """Args: repeats: how often each prompt occurred before it in the same call; equal prompts differ by it."""
        self._settings = list(settings)
        self._numbers = [random_numbers(*each) for each in zip(settings, prompts, repeats, strict=True)]
        self._steps = [0] * len(self._settings)
        self._penalties = Penalties.of(settings, prompts, vocabulary)

    def draw(self, logits: torch.Tensor, allowed: torch.Tensor | None = None) -> Drawn:
        """Return the next token of each row. logits: float32 [B, V]. allowed: bool [B, V], None for all tokens."""
        scores = logits if self._penalties is None else self._penalties.apply(logits)
        if allowed is not None:
            scores = scores.masked_fill(~allowed.to(scores.device), -torch.inf)
        groups: dict[tuple[float, ...], list[int]] = {}
        for row, each in enumerate(self._settings):
            kind = (each.temperature, each.top_p, each.top_k, each.min_p) if each.temperature else ()
            groups.setdefault(kind, []).append(row)
        tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
        for rows in groups.values():
            chosen = scores if len(rows) == len(logits) else scores[rows]
            tokens[rows] = self._drawn(chosen, rows)
        if self._penalties is not None:
            self._penalties.add(tokens)
        self._steps = [step + 1 for step in self._steps]
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - torch.logsumexp(logits, dim=-1)
        return Drawn(tokens, logprobs, self._top(logits))

    def _drawn(self, scores: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """Draw for rows of equal settings."""
        settings = self._settings[rows[0]]
        if settings.temperature == 0:
            return scores.argmax(dim=-1)
        probabilities, ids = candidates(scores, settings)
        # A row that has ended stays in the batch for some steps, and what it draws is dropped.
        numbers = [float(each[min(self._steps[row], len(each) - 1)]) for row in rows for each in [self._numbers[row]]]
        tokens = pick(probabilities, torch.tensor(numbers, dtype=torch.float64, device=scores.device))
        return tokens if ids is None else ids.gather(1, tokens[:, None])[:, 0]

    def _top(self, logits: torch.Tensor) -> list[TopTokens]:
        """Return the most probable tokens of the rows that want them."""
        found: list[TopTokens] = [[] for _ in self._settings]
        for row, each in enumerate(self._settings):
            if each.top_logprobs:
                values, ids = torch.log_softmax(logits[row], dim=-1).topk(min(each.top_logprobs, logits.shape[1]))
                found[row] = list(zip(ids.tolist(), values.tolist(), strict=True))
        return found

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self._settings = [self._settings[row] for row in rows]
        self._numbers = [self._numbers[row] for row in rows]
        self._steps = [self._steps[row] for row in rows]
        if self._penalties is not None:
            self._penalties.keep(rows)

    def join(self, other: Sampler) -> None:
        """Append the rows of another sampler."""
        sizes = len(self._settings), len(other._settings)
        self._penalties = Penalties.joined(self._penalties, other._penalties, sizes)
        self._settings += other._settings
        self._numbers += other._numbers
        self._steps += other._steps


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
