"""Truncation of the distribution equals transformers' own, and draws follow it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raypath.components.inference.generation.batching import sampling
from raypath.components.inference.generation.batching.penalties import penalize
from raypath.components.inference.generation.batching.sampling import candidates, pick, random_numbers
from raypath.components.inference.generation.engine import SamplingSettings

CASES: list[dict[str, Any]] = [
    {},
    {"top_k": 5},
    {"top_p": 0.7},
    {"top_p": 0.05},
    {"min_p": 0.2},
    {"top_k": 9, "top_p": 0.6, "min_p": 0.1},
    {"top_k": 500},
]


@pytest.mark.parametrize("nucleus", [4, 1_024])
@pytest.mark.parametrize("case", CASES)
def test_candidates_are_those_of_transformers(case: dict[str, Any], nucleus: int, monkeypatch: Any) -> None:
    import torch
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    monkeypatch.setattr(sampling, "NUCLEUS", nucleus)
    scores = 3 * torch.randn(8, 40, generator=torch.Generator().manual_seed(1))
    wanted = TemperatureLogitsWarper(0.8)(None, scores)
    for name, kind in (("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper), ("min_p", MinPLogitsWarper)):
        if name in case:
            wanted = kind(case[name])(None, wanted)
    probabilities, ids = candidates(scores, SamplingSettings(temperature=0.8, **case))
    found = torch.zeros(8, 40)
    found = found.scatter(1, ids, probabilities) if ids is not None else probabilities
    torch.testing.assert_close(found / found.sum(1, keepdim=True), torch.softmax(wanted, dim=-1))


def test_the_penalty_is_that_of_transformers() -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    scores = torch.randn(2, 10, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[1, 2, 2], [9, 0, 3]])
    seen = torch.zeros(2, 10, dtype=torch.bool).scatter(1, ids, True)
    torch.testing.assert_close(penalize(scores, seen, 1.4), RepetitionPenaltyLogitsProcessor(1.4)(ids, scores.clone()))


def test_draws_follow_the_distribution() -> None:
    import torch

    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.3, 0.2, 0.0]]).expand(20_000, -1)
    uniform = torch.from_numpy(np.random.default_rng(0).random(20_000))
    shares = np.bincount(pick(probabilities, uniform).numpy(), minlength=6) / 20_000
    np.testing.assert_allclose(shares, [0, 0.5, 0, 0.3, 0.2, 0], atol=0.01)
    assert shares[[0, 2, 5]].sum() == 0
    ends = torch.tensor([0.0, 1 - 1e-17], dtype=torch.float64)
    assert pick(probabilities[:2], ends).tolist() == [1, 4]


def test_random_numbers_belong_to_a_prompt() -> None:
    settings = SamplingSettings(max_new_tokens=4, temperature=1.0, seed=1)
    first = random_numbers(settings, [1, 2], 0)
    assert first.tolist() == random_numbers(settings, [1, 2], 0).tolist()
    others = [random_numbers(settings, [1, 2], 1), random_numbers(settings, [2, 1], 0)]
    others.append(random_numbers(SamplingSettings(max_new_tokens=4, temperature=1.0, seed=2), [1, 2], 0))
    assert len({float(each[0]) for each in [first, *others]}) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("max_new_tokens", 0), ("temperature", -1.0), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1), ("min_p", 2.0)],
        *[("max_new_tokens", 2.5), ("temperature", "x"), ("temperature", float("nan")), ("seed", -1), ("top_k", "3")],
    ],
)
def test_settings_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        SamplingSettings(**{name: value})  # type: ignore[arg-type]
