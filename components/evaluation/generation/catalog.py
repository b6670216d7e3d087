"""Metrics of generated text by name. Each row becomes a few counts, and a metric is a function of their sums.

Resampling rows therefore computes no row again, and two models are compared by the gate as classifiers are.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import ParamsError
from raypath.components.evaluation.bootstrap import between, ratio
from raypath.components.evaluation.generation import behaviour, choices, overlap, structure, translation
from raypath.components.evaluation.generation.answers import Answers, References
from raypath.components.evaluation.generation.leaks import has_canary
from raypath.components.evaluation.outcomes import Outcomes, Weighted

Counts = Callable[[References, Answers], Array]


@dataclass(frozen=True)
class Metric:
    """A metric. about: what it measures, for the page."""

    about: str
    counts: Counts
    """Counts of each row, float64 [N, F]."""
    combine: Callable[[Array], Array]
    """Metric of sums of counts, [R, F] -> [R]."""
    lower: bool = False
    """Lower is better."""
    top: float | None = 1.0
    """Highest value; None without one."""
    neutral: bool = False
    """Neither higher nor lower is better."""
    score: Callable[[Array], Array] | None = None
    """Score of each row alone, [N, F] -> [N], if it is not `combine`."""

    def outcomes(self, counts: Array) -> Outcomes:
        """Return outcomes by row for `paired.compare`."""
        scores = np.asarray((self.score or self.combine)(counts), np.float64)
        return Outcomes(counts, -scores if self.lower else scores, self._weighted)

    def _weighted(self, rows: Array) -> Weighted:
        return lambda weights: self.combine(weights @ rows)


def check_names(names: Sequence[str]) -> None:
    """Raise ParamsError for an unknown metric."""
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            known = f"did you mean {near[0]}?" if near else f"use some of {', '.join(METRICS)}"
            raise ParamsError(f"setting metrics got {name}, which is not a metric of generated text", fix=known)


def choose(wanted: References) -> list[str]:
    """Return the metrics that fit the references, the main one first.

    JSON: valid JSON and equal values. One of few answers: accuracy. Short answers: exact match. Others: ROUGE-L.
    """
    bleu = ["bleu"] if translation.has_bleu() else []
    if wanted.schema is not None or wanted.expects_json:
        schema = ["schema_valid"] if wanted.schema is not None else []
        chosen = ["json_fields", "json_match", "valid_json", *schema]
    elif wanted.choices:
        chosen = ["answer_accuracy", "answer_macro_f1", "exact_match"]
    elif np.median([behaviour.length(text) for text in wanted.texts]) <= SHORT:
        chosen = ["exact_match", "token_f1", "chrf"]
    else:
        chosen = ["rouge_l", "chrf", *bleu, "token_f1"]
    return chosen


def translations() -> list[str]:
    """Return the metrics of texts that are written for a text, the main one first."""
    return ["chrf", *(["bleu"] if translation.has_bleu() else []), "rouge_l", "exact_match"]


def measure(names: Sequence[str], wanted: References, answers: Answers) -> dict[str, Array]:
    """Return the counts of each row by metric, float64 [N, F]; without those that the answers have no facts for."""
    return {name: METRICS[name].counts(wanted, answers) for name in names if _is_known(name, wanted, answers)}


def value(name: str, counts: Array) -> float:
    """Return a metric of all rows."""
    return float(METRICS[name].combine(counts.sum(axis=0, keepdims=True))[0])


def intervals(name: str, counts: Array, resamples: int, seed: int) -> dict[str, float]:
    """Return the 95% bootstrap interval of a metric, `<name>_low` and `<name>_high`; {} without resamples."""
    kinds, rows = np.unique(counts, axis=0, return_counts=True)
    combine = METRICS[name].combine
    return between((name,), rows, lambda draws: combine(draws @ kinds)[:, None], resamples, seed)


def _is_known(name: str, wanted: References, answers: Answers) -> bool:
    known = {
        **dict.fromkeys(LIKELIHOOD, answers.likelihood is not None),
        **dict.fromkeys(PREFERENCE, answers.rewards is not None),
        **dict.fromkeys(("answer_accuracy", "answer_macro_f1"), bool(wanted.choices)),
        "schema_valid": wanted.schema is not None,
        "stopped": bool(answers.stopped),
        "leaks": wanted.phrases is not None,
        "canaries": bool(wanted.canaries),
        "judge": answers.judged is not None,
    }
    return known.get(name, True)


def _mean(sums: Array) -> Array:
    return ratio(sums[:, 0], sums[:, 1])


def _counted(values: Sequence[float] | Array) -> Array:
    found = np.asarray(values, np.float64)
    return np.stack([found, np.ones(len(found))], axis=1)


def _pairs(function: Callable[[str, str], float]) -> Counts:
    return lambda wanted, answers: _counted(
        [function(*pair) for pair in zip(wanted.texts, answers.predictions, strict=True)]
    )


def _alone(function: Callable[[str], float]) -> Counts:
    return lambda _, answers: _counted([function(text) for text in answers.predictions])


def _likelihood(_: References, answers: Answers) -> Array:
    assert answers.likelihood is not None
    return np.asarray(answers.likelihood, np.float64)


def _rewards(column: int) -> Counts:
    def counts(_: References, answers: Answers) -> Array:
        assert answers.rewards is not None
        return _counted(answers.rewards[:, column])

    return counts


def _lengths(wanted: References, answers: Answers) -> Array:
    both = (answers.predictions, wanted.texts)
    return np.array([[behaviour.length(text) for text in texts] for texts in both], np.float64).T.reshape(-1, 2)


def _stopped(_: References, answers: Answers) -> Array:
    return _counted([float(each) for each in answers.stopped])


def _by_schema(wanted: References, answers: Answers) -> Array:
    assert wanted.schema is not None
    return _counted([wanted.schema(text) for text in answers.predictions])


def _canaries(wanted: References, answers: Answers) -> Array:
    return _counted([has_canary(text, wanted.canaries) for text in answers.predictions])


def _leaks(wanted: References, answers: Answers) -> Array:
    return _counted([float(words > 0) for words in wanted.copied_words(answers.predictions)])


def _judged(_: References, answers: Answers) -> Array:
    assert answers.judged is not None
    there = np.isfinite(answers.judged)
    return np.stack([np.where(there, answers.judged, 0.0), there.astype(np.float64)], axis=1)


def _corpus(counts: Callable[[Sequence[str], Sequence[str]], Array]) -> Counts:
    return lambda wanted, answers: counts(wanted.texts, answers.predictions)


def _choices(wanted: References, answers: Answers) -> Array:
    return choices.choice_counts(wanted.texts, answers.predictions, wanted.choices)


def _perplexity(sums: Array) -> Array:
    return np.asarray(np.exp(np.minimum(_mean(sums), 700.0)))


def _next_tokens(sums: Array) -> Array:
    return ratio(sums[:, 2], sums[:, 1])


SHORT = 5
"""Median number of words up to which answers are short."""
LIKELIHOOD = ("loss", "perplexity", "accuracy")
PREFERENCE = ("reward_accuracy", "reward_margin", "preference_loss")
"""Metrics of pairs of answers, for a model that was trained on preferences."""
BEHAVIOUR = ("length", "length_ratio", "stopped", "refusals", "repetition", "loops", "leaks", "canaries", "judge")
"""Metrics of all kinds of answers."""

METRICS: dict[str, Metric] = {
    "loss": Metric(
        "negative log-likelihood of the reference, nats per token", _likelihood, _mean, lower=True, top=None
    ),
    "perplexity": Metric(
        "exp(loss)", _likelihood, _perplexity, lower=True, top=None, score=lambda rows: _mean(np.asarray(rows))
    ),
    "accuracy": Metric("next tokens of the reference that are predicted correctly", _likelihood, _next_tokens),
    "reward_accuracy": Metric("pairs whose chosen response has the higher reward; half for a tie", _rewards(0), _mean),
    "reward_margin": Metric("difference of the rewards of a pair", _rewards(1), _mean, top=None),
    "preference_loss": Metric("loss of the preference objective", _rewards(2), _mean, lower=True, top=None),
    "exact_match": Metric("equal to the reference after normalization", _pairs(overlap.exact_match), _mean),
    "token_f1": Metric("F1 of the words, as in SQuAD", _pairs(overlap.token_f1), _mean),
    "rouge_l": Metric("F1 of the longest common subsequence of words", _pairs(overlap.rouge_l), _mean),
    "chrf": Metric("chrF2, 0 to 100", _corpus(translation.chrf_counts), translation.chrf, top=100.0),
    "bleu": Metric(
        "BLEU, 0 to 100",
        _corpus(translation.bleu_counts),
        translation.bleu,
        top=100.0,
        score=lambda rows: translation.bleu(rows, effective=True),
    ),
    "answer_accuracy": Metric("the right one of few responses", _choices, choices.accuracy),
    "answer_macro_f1": Metric("mean F1 of the choices", _choices, choices.macro_f1, score=choices.accuracy),
    "valid_json": Metric("valid JSON", _alone(lambda text: float(structure.parse(text) is not structure.NONE)), _mean),
    "schema_valid": Metric("valid by the schema", _by_schema, _mean),
    "json_match": Metric("the same JSON value as the reference", _pairs(structure.json_match), _mean),
    "json_fields": Metric("F1 of the fields with the same value", _pairs(structure.json_fields), _mean),
    "length": Metric("words of a response", _alone(behaviour.length), _mean, top=None, neutral=True),
    "length_ratio": Metric(
        "words of the responses per word of the references", _lengths, _mean, top=None, neutral=True
    ),
    "stopped": Metric("responses ended by a stop token", _stopped, _mean),
    "refusals": Metric("responses that refuse", _alone(behaviour.is_refusal), _mean, lower=True),
    "repetition": Metric("4-grams of words that are repeated", _alone(behaviour.repetition), _mean, lower=True),
    "loops": Metric("responses that repeat a phrase in a loop", _alone(behaviour.has_loop), _mean, lower=True),
    "leaks": Metric("responses that copy a passage of a training response", _leaks, _mean, lower=True),
    "canaries": Metric("responses with a planted canary", _canaries, _mean, lower=True),
    "judge": Metric("preferred to the base's response by the judge; half for a tie", _judged, _mean),
}
