"""Losses for learning from preferences, as functions of the log-probabilities of answers.

x is a prompt, y its answer, pi the model that is trained and ref the reference: the model that training starts from.
log pi(y|x) is summed over the tokens of the answer. A log-ratio is log pi(y|x) - log ref(y|x); of a length-normalised
objective it is divided by the number of tokens. All arguments and results are float32 tensors [B], one number a pair or
an answer; sigma is the logistic function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

LARGEST_LOG = -1e-6
"""Largest mean log-probability in an odds ratio: the odds of an answer of probability 1 are infinite."""


@dataclass(frozen=True)
class PreferenceObjective:
    """Facts about an objective. beta: its default, from the paper."""

    beta: float
    reference: bool = True
    """Log-probabilities of the reference are needed."""
    per_token: bool = False
    """Log-probabilities are divided by the number of tokens."""
    smoothing: bool = True
    """Label smoothing is supported."""
    pairs: bool = True
    """Rows are pairs of answers; else single answers, each good or bad."""


OBJECTIVES = {
    "dpo": PreferenceObjective(beta=0.1),
    "dpo_norm": PreferenceObjective(beta=5.0, per_token=True),
    "ipo": PreferenceObjective(beta=0.1, per_token=True, smoothing=False),
    "simpo": PreferenceObjective(beta=2.0, reference=False, per_token=True),
    "orpo": PreferenceObjective(beta=0.1, reference=False, per_token=True, smoothing=False),
    "kto": PreferenceObjective(beta=0.1, smoothing=False, pairs=False),
}


class Answers(NamedTuple):
    """Log-probabilities of answers: of the model, summed; number of tokens; of the reference, summed, or None."""

    logps: Any
    tokens: Any
    reference: Any = None

    def scores(self, objective: PreferenceObjective) -> Any:
        """Return what the objective compares: log-ratios, or log-probabilities without a reference."""
        found = self.logps - self.reference if objective.reference else self.logps
        return found / self.tokens if objective.per_token else found


def pair_loss(name: str, chosen: Answers, rejected: Answers, beta: float, smoothing: float, margin: float) -> Any:
    """Loss of each pair by the name of its objective. smoothing and margin: of those that have them."""
    better, worse = chosen.scores(OBJECTIVES[name]), rejected.scores(OBJECTIVES[name])
    if name == "ipo":
        return ipo_loss(better, worse, beta)
    if name == "orpo":
        return orpo_loss(better, worse, beta)
    if name == "simpo":
        return simpo_loss(better, worse, beta, margin, smoothing)
    return dpo_loss(better, worse, beta, smoothing)


def dpo_loss(chosen: Any, rejected: Any, beta: float, smoothing: float = 0.0) -> Any:
    """Direct preference optimization: -log sigma(beta (chosen - rejected)) of log-ratios.

    Rafailov et al., Direct Preference Optimization, 2023, eq. 7. smoothing: probability that the labels of a pair
    are swapped, as in Mitchell, A note on DPO with noisy preferences, 2023, eq. 3. With log-ratios per token it is the
    length-normalised form of Lambert et al., Tülu 3, 2024, section 5.1.2, which does not reward length by itself.
    """
    from torch.nn.functional import logsigmoid

    difference = beta * (chosen - rejected)
    return -(1 - smoothing) * logsigmoid(difference) - smoothing * logsigmoid(-difference)


def ipo_loss(chosen: Any, rejected: Any, beta: float) -> Any:
    """Identity preference optimization: (chosen - rejected - 1 / (2 beta))^2 of log-ratios.

    Azar et al., A General Theoretical Paradigm to Understand Learning from Human Preferences, 2023, eq. 17. The
    difference has a target, so that certain preferences do not drive it to infinity. Log-ratios are per token here, as
    in the authors' and TRL's code.
    """
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def simpo_loss(chosen: Any, rejected: Any, beta: float, margin: float, smoothing: float = 0.0) -> Any:
    """Simple preference optimization: -log sigma(beta (chosen - rejected) - margin) of log-probabilities per token.

    Meng et al., SimPO: Simple Preference Optimization with a Reference-Free Reward, 2024, eq. 6; margin is its gamma.
    """
    return dpo_loss(chosen - margin / beta, rejected, beta, smoothing)


def orpo_loss(chosen: Any, rejected: Any, beta: float) -> Any:
    """Odds ratio preference optimization: -chosen - beta log sigma(log odds(chosen) - log odds(rejected)).

    Arguments are log-probabilities per token, odds(p) = p / (1 - p). Hong et al., ORPO: Monolithic Preference
    Optimization without Reference Model, 2024, eq. 4 to 7; beta is its lambda. The first term is the loss of plain
    fine-tuning on the chosen answer.
    """
    from torch.nn.functional import logsigmoid

    return -chosen - beta * logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def kto_loss(scores: Any, good: Any, point: Any, beta: float) -> Any:
    """Kahneman-Tversky optimization: 1 - sigma(beta (score - point)) of a good answer, 1 - sigma(beta (point - score))
    of a bad one.

    Ethayarajh et al., KTO: Model Alignment as Prospect Theoretic Optimization, 2024, eq. 7 and 8, with the weights 1.
    scores: log-ratios; good: bool [B]; point: a scalar, see `kto_reference_point`.
    """
    import torch

    difference = beta * (scores - point)
    return torch.sigmoid(torch.where(good, -difference, difference))


def kto_reference_point(scores: Any) -> Any:
    """Reference point of KTO, a scalar without a gradient: the mean log-ratio of mismatched answers, at least 0.

    An estimate of the divergence of the model from the reference, from answers to other prompts (section 4.1).
    """
    return scores.detach().mean().clamp(min=0)


def _log_odds(logs: Any) -> Any:
    """Log odds of probabilities, given as their logarithms: log p - log(1 - p)."""
    import torch

    logs = logs.clamp(max=LARGEST_LOG)
    return logs - torch.log(-torch.expm1(logs))
