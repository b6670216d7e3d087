"""BLEU and chrF equal sacrebleu's, of a corpus and of resamples of it."""

# ruff: noqa: RUF001 - Chinese punctuation

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from raypath.components.core.errors import ParamsError
from raypath.components.evaluation.generation import translation

ENGLISH = [
    ("The cat sat on the mat, and purred.", "A cat sat on a mat and purred loudly."),
    ("It's 3.5% more than in 2019-2020.", "It is 3.5 % more than 2019."),
    ("Hello world", "Goodbye"),
    ("one two three", "one two three"),
    ("short", ""),
    ('"Quoted" & <b>bold</b>\ntext', '"Quoted" & bold text'),
]
CHINESE = [
    ("我喜欢喝茶，你呢？", "我爱喝茶。你呢？"),
    ("今天天气很好 OK", "今天的天气好"),
    ("北京2008年", "2008年的北京"),
]


def _random_pairs(seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(["a", "bc", "d.", "e,f", "1.2", "-"], k=rng.randrange(1, 14))) for _ in range(40)]
    return list(zip(texts[:20], texts[20:], strict=True))


CORPORA = [ENGLISH, CHINESE, _random_pairs(0), _random_pairs(1), [("a b c d e", "f g h")], [("a b", "a b")]]


@pytest.mark.parametrize("pairs", CORPORA)
def test_chrf_equals_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    metric = pytest.importorskip("sacrebleu").CHRF()
    references, predictions = map(list, zip(*pairs, strict=True))
    _equal(translation.chrf_counts, translation.chrf, metric, references, predictions)


@pytest.mark.parametrize("pairs", CORPORA)
def test_bleu_equals_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    metric = sacrebleu.BLEU(tokenize="zh" if pairs is CHINESE else "13a")
    references, predictions = map(list, zip(*pairs, strict=True))
    _equal(translation.bleu_counts, translation.bleu, metric, references, predictions)
    alone = sacrebleu.BLEU(tokenize="zh" if pairs is CHINESE else "13a", effective_order=True)
    counts = translation.bleu_counts(references, predictions)
    wanted = [alone.sentence_score(given, [there]).score for there, given in pairs]
    np.testing.assert_allclose(translation.bleu(counts, effective=True), wanted)


def _equal(counts: Any, combine: Any, metric: Any, references: list[str], predictions: list[str]) -> None:
    """Compare the whole corpus, and three resamples of it as sums of weighted rows."""
    rows = counts(references, predictions)
    rng = np.random.default_rng(0)
    chosen = [np.arange(len(rows)), *(rng.integers(0, len(rows), len(rows)) for _ in range(3))]
    weights = np.array([np.bincount(each, minlength=len(rows)) for each in chosen])
    wanted = [
        metric.corpus_score([predictions[n] for n in each], [[references[n] for n in each]]).score for each in chosen
    ]
    np.testing.assert_allclose(combine(weights @ rows), wanted, rtol=1e-9)


def test_bleu_without_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "has_bleu", lambda: False)
    with pytest.raises(ParamsError, match="needs sacrebleu"):
        translation.bleu_counts(["a"], ["a"])
