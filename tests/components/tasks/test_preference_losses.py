"""Losses of preferences: against TRL's formulas in plain torch, against numbers worked out by hand, and gradients."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from raypath.components.tasks.objectives.preference import (
    OBJECTIVES,
    Answers,
    dpo_loss,
    ipo_loss,
    kto_loss,
    kto_reference_point,
    orpo_loss,
    pair_loss,
    simpo_loss,
)

RNG = np.random.default_rng(0)
ROWS = 40


def _logs(low: float = -30.0) -> torch.Tensor:
    return torch.tensor(RNG.uniform(low, -0.5, ROWS), dtype=torch.float64)


CHOSEN, REJECTED, CHOSEN_REFERENCE, REJECTED_REFERENCE, MISMATCHED = (_logs() for _ in range(5))
LONG, SHORT = (torch.tensor(RNG.integers(1, 30, ROWS), dtype=torch.float64) for _ in range(2))


def _pairs(**changed: torch.Tensor) -> tuple[Answers, Answers]:
    chosen = Answers(changed.get("chosen", CHOSEN), LONG, CHOSEN_REFERENCE)
    return chosen, Answers(changed.get("rejected", REJECTED), SHORT, REJECTED_REFERENCE)


def trl_dpo(kind: str, beta: float, smoothing: float) -> torch.Tensor:
    """`DPOTrainer._compute_loss` of TRL, for its loss types sigmoid, sigmoid_norm and ipo."""
    chosen_logratios, rejected_logratios = CHOSEN - CHOSEN_REFERENCE, REJECTED - REJECTED_REFERENCE
    if kind in ("sigmoid_norm", "ipo"):
        chosen_logratios, rejected_logratios = chosen_logratios / LONG, rejected_logratios / SHORT
    delta = chosen_logratios - rejected_logratios
    if kind == "ipo":
        return (delta - 1 / (2 * beta)) ** 2
    return -functional.logsigmoid(beta * delta) * (1 - smoothing) - functional.logsigmoid(-beta * delta) * smoothing


@pytest.mark.parametrize(("name", "kind"), [("dpo", "sigmoid"), ("dpo_norm", "sigmoid_norm"), ("ipo", "ipo")])
@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_forms_of_dpo_are_those_of_trl(name: str, kind: str, beta: float, smoothing: float) -> None:
    found = pair_loss(name, *_pairs(), beta, smoothing, 0.5)
    torch.testing.assert_close(found, trl_dpo(kind, beta, smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_simpo_is_that_of_trl(smoothing: float) -> None:
    """`CPOTrainer.cpo_loss` with loss_type="simpo", whose log-probabilities are means."""
    beta, gamma = 2.0, 1.2
    logits = CHOSEN / LONG - REJECTED / SHORT - gamma / beta
    theirs = -functional.logsigmoid(beta * logits) * (1 - smoothing) - functional.logsigmoid(-beta * logits) * smoothing
    torch.testing.assert_close(pair_loss("simpo", *_pairs(), beta, smoothing, gamma), theirs)


def test_orpo_is_that_of_trl() -> None:
    """`ORPOTrainer.odds_ratio_loss` and the loss of the chosen answer, both of means over tokens."""
    beta, chosen, rejected = 0.3, CHOSEN / LONG, REJECTED / SHORT
    log_odds = (chosen - rejected) - (torch.log1p(-torch.exp(chosen)) - torch.log1p(-torch.exp(rejected)))
    torch.testing.assert_close(
        pair_loss("orpo", *_pairs(), beta, 0.0, 0.0), -chosen - beta * functional.logsigmoid(log_odds)
    )


def test_kto_is_that_of_trl() -> None:
    """`KTOTrainer.kto_loss` with both weights 1."""
    beta, good = 0.1, torch.tensor(RNG.random(ROWS) < 0.6)
    ratios = CHOSEN - CHOSEN_REFERENCE
    kl = (MISMATCHED - REJECTED_REFERENCE).mean().clamp(min=0).detach()
    wanted = torch.where(good, 1 - torch.sigmoid(beta * (ratios - kl)), 1 - torch.sigmoid(beta * (kl - ratios)))
    point = kto_reference_point(MISMATCHED - REJECTED_REFERENCE)
    torch.testing.assert_close(kto_loss(ratios, good, point, beta), wanted)


def test_numbers_worked_out_by_hand() -> None:
    one = torch.tensor([2.0], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64)
    assert dpo_loss(*one, beta=0.5).item() == pytest.approx(math.log(1 + math.exp(-1.5)))
    assert dpo_loss(*one, beta=0.5, smoothing=0.25).item() == pytest.approx(math.log(1 + math.exp(-1.5)) + 0.25 * 1.5)
    assert ipo_loss(*one, beta=0.25).item() == pytest.approx(1.0)  # (3 - 2)^2
    assert simpo_loss(*one, beta=0.5, margin=1.5).item() == pytest.approx(math.log(2))  # 0.5 * 3 - 1.5 = 0
    # Probabilities 1/2 and 1/4 have the odds 1 and 1/3: the odds ratio is 3, and its sigmoid 3/4.
    half, quarter = torch.tensor([0.5, 0.25], dtype=torch.float64).log()[:, None]
    assert orpo_loss(half, quarter, beta=2.0).item() == pytest.approx(math.log(2) - 2 * math.log(0.75))
    scores, good = torch.tensor([3.0, 3.0], dtype=torch.float64), torch.tensor([True, False])
    sigmoid = 1 / (1 + math.exp(-1.0))
    assert kto_loss(scores, good, torch.tensor(1.0), beta=0.5).tolist() == pytest.approx([1 - sigmoid, sigmoid])


def test_without_a_difference_from_the_reference() -> None:
    """The first step: the loss of DPO is log 2, of IPO the square of its target, of KTO one half."""
    same = Answers(CHOSEN, LONG, CHOSEN), Answers(REJECTED, SHORT, REJECTED)
    for name in ("dpo", "dpo_norm"):
        assert pair_loss(name, *same, 0.1, 0.0, 0.0).numpy() == pytest.approx(math.log(2))
    assert pair_loss("ipo", *same, 0.1, 0.0, 0.0).numpy() == pytest.approx(25.0)
    scores = same[0].scores(OBJECTIVES["kto"])
    assert kto_loss(scores, torch.ones(ROWS, dtype=torch.bool), kto_reference_point(scores), 0.1).unique().item() == 0.5


@pytest.mark.parametrize("name", [name for name, objective in OBJECTIVES.items() if objective.pairs])
def test_gradients_are_those_of_finite_differences_and_favour_the_chosen_answer(name: str) -> None:
    chosen, rejected = CHOSEN[:6].clone().requires_grad_(), REJECTED[:6].clone().requires_grad_()

    def loss(better: torch.Tensor, worse: torch.Tensor) -> Any:
        pair = Answers(better, LONG[:6], CHOSEN_REFERENCE[:6]), Answers(worse, SHORT[:6], REJECTED_REFERENCE[:6])
        return pair_loss(name, *pair, 0.1, 0.0, 0.5)

    assert torch.autograd.gradcheck(loss, (chosen, rejected))
    up, down = torch.autograd.grad(loss(chosen, rejected).sum(), (chosen, rejected))
    if name != "ipo":  # which also reduces a difference beyond its target
        assert bool((up < 0).all())
        assert bool((down > 0).all())


def test_gradients_of_kto_pass_through_the_answers_alone() -> None:
    scores = (CHOSEN - CHOSEN_REFERENCE).requires_grad_()
    mismatched = MISMATCHED.clone().requires_grad_()
    good = torch.arange(ROWS) % 2 == 0
    point = kto_reference_point(mismatched + 60)
    assert torch.autograd.gradcheck(lambda given: kto_loss(given, good, point, 0.1), (scores,))
    found = torch.autograd.grad(kto_loss(scores, good, point, 0.1).sum(), (scores, mismatched), allow_unused=True)
    assert bool((found[0][good] < 0).all())
    assert bool((found[0][~good] > 0).all())
    assert found[1] is None


@pytest.mark.parametrize("name", [name for name, objective in OBJECTIVES.items() if objective.pairs])
def test_extreme_answers_have_a_finite_loss_and_gradient(name: str) -> None:
    """Answers of probability 1, and such that underflow, in float32."""
    logs = torch.tensor([0.0, -1e-9, -1e4, 0.0, -1e4], requires_grad=True)
    other = torch.tensor([-1e4, 0.0, 0.0, 0.0, -1e4], requires_grad=True)
    tokens, reference = torch.tensor([1.0, 1.0, 400.0, 7.0, 1.0]), torch.full((5,), -3.0)
    found = pair_loss(name, Answers(logs, tokens, reference), Answers(other, tokens, reference), 0.1, 0.0, 0.5)
    found.sum().backward()
    assert bool(torch.isfinite(found).all())
    for given in (logs, other):
        assert given.grad is not None
        assert bool(torch.isfinite(given.grad).all())
