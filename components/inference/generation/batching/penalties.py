"""Penalties on tokens that occurred: repetition as in transformers, presence and frequency as in OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from raypath.components.inference.generation.engine import SamplingSettings


class Penalties:
    """Tokens that occurred in B rows, and the factors of each.

    seen: bool [B, V], tokens of prompt or response. counts: int32 [B, V], of the response. factors: float32 [B, 3],
    repetition, presence and frequency.
    """

    def __init__(self, seen: torch.Tensor, counts: torch.Tensor, factors: torch.Tensor) -> None:
        self._seen, self._counts, self._factors = seen, counts, factors

    @classmethod
    def of(
        cls, settings: Sequence[SamplingSettings], prompts: Sequence[Sequence[int]], vocabulary: int
    ) -> Penalties | None:
        """Return the penalties of rows before their first token; None where no row has one."""
        factors = [[each.repetition_penalty, each.presence_penalty, each.frequency_penalty] for each in settings]
        if all(each == [1, 0, 0] for each in factors):
            return None
        seen = torch.zeros((len(prompts), vocabulary), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            seen[row, torch.tensor(prompt)] = True
        return cls(seen, torch.zeros(seen.shape, dtype=torch.int32), torch.tensor(factors))

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [B, V], with the penalties."""
        if self._seen.device != logits.device:
            self._seen, self._counts, self._factors = (
                each.to(logits.device) for each in (self._seen, self._counts, self._factors)
            )
        repetition, presence, frequency = (self._factors[:, n : n + 1] for n in range(3))
        lowered = penalize(logits, self._seen, repetition)
        return lowered - presence * (self._counts > 0) - frequency * self._counts

    def add(self, tokens: torch.Tensor) -> None:
        """Count a token of each row, int64 [B]."""
        self._seen.scatter_(1, tokens[:, None], True)
        self._counts.scatter_add_(1, tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.int32))

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        kept = list(rows)
        self._seen, self._counts, self._factors = self._seen[kept], self._counts[kept], self._factors[kept]

    @staticmethod
    def joined(first: Penalties | None, second: Penalties | None, sizes: tuple[int, int]) -> Penalties | None:
        """Return the penalties of the rows of two batches, None where neither has any. sizes: their rows."""
        if first is None and second is None:
            return None
        parts = [each or _none(size, first or second) for each, size in zip((first, second), sizes, strict=True)]
        device = parts[0]._seen.device
        names = ("_seen", "_counts", "_factors")
        return Penalties(*(torch.cat([getattr(part, name).to(device) for part in parts]) for name in names))


def penalize(logits: torch.Tensor, seen: torch.Tensor, penalty: torch.Tensor | float) -> torch.Tensor:
    """Lower the logits of tokens that were seen, bool [B, V] (Keskar et al., CTRL, 2019, section 4.1)."""
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def _none(rows: int, like: Penalties | None) -> Penalties:
    """Return rows without a penalty; what their prompts contain does not matter."""
    assert like is not None
    shape = (rows, like._seen.shape[1])
    factors = torch.tensor([[1.0, 0.0, 0.0]]).expand(rows, -1)
    return Penalties(torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.int32), factors)
