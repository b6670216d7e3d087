"""Metrics by name: which fit, their values, intervals, and comparison of two models by the gate's code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raypath.components.core.errors import ParamsError
from raypath.components.evaluation.generation import catalog, translation
from raypath.components.evaluation.generation.answers import Answers, References
from raypath.components.evaluation.generation.leaks import PhraseIndex
from raypath.components.evaluation.generation.overlap import rouge_l
from raypath.components.evaluation.generation.stored import load_counts, save_counts
from raypath.components.evaluation.generation.structure import schema_validator
from raypath.components.evaluation.paired import compare

LONG = [f"The answer to question {n} is that the engine stopped and number {n} restarted it." for n in range(40)]
GOOD = [text.replace("stopped", "failed") if n % 3 else text for n, text in enumerate(LONG)]
BAD = ["I cannot help with that." if n % 2 else "the the the the " * 5 for n in range(40)]


@pytest.mark.parametrize(
    ("texts", "first"),
    [
        (LONG, "rouge_l"),
        (["yes", "no", "no"] * 5, "answer_accuracy"),
        (['{"a": 1}', '{"a": 2}'] * 9, "json_fields"),
        ([f"Paris {n}" for n in range(9)], "exact_match"),
    ],
)
def test_the_metrics_that_fit(texts: list[str], first: str) -> None:
    chosen = catalog.choose(References(texts))
    assert chosen[0] == first
    assert set(chosen) < set(catalog.METRICS)
    assert not {*catalog.BEHAVIOUR, *catalog.LIKELIHOOD} & set(chosen), "those fit all answers, and come behind"


def test_metrics_without_their_facts_are_left_out() -> None:
    wanted = References(LONG)
    found = catalog.measure(list(catalog.METRICS), wanted, Answers(GOOD))
    missing = {
        *catalog.LIKELIHOOD,
        *catalog.PREFERENCE,
        "answer_accuracy",
        "answer_macro_f1",
        "schema_valid",
        "stopped",
        "leaks",
        "canaries",
    }
    assert set(catalog.METRICS) - set(found) - {"bleu"} == missing | {"judge"}


def test_values_intervals_and_comparison_of_every_metric() -> None:
    texts = ['{"a": "yes"}', '{"a": "no"}'] * 20
    wanted = References(
        texts,
        prompts=["?"] * 40,
        schema=schema_validator({"type": "object"}),
        phrases=PhraseIndex(LONG),
        canaries=["zebra"],
    )
    rng = np.random.default_rng(0)
    likelihood = np.stack([rng.random(40) * 9, np.full(40, 9.0), rng.integers(0, 9, 40)], axis=1)
    judged = np.where(np.arange(40) % 4, 1.0, np.nan)
    rewards = np.stack([np.arange(40) % 5 > 0, rng.random(40), rng.random(40)], axis=1).astype(np.float64)
    good = Answers([*texts[:30], "zebra", *LONG[31:]], [True] * 30 + [False] * 10, likelihood, judged, rewards)
    bad = Answers(
        BAD, [False] * 40, likelihood + np.array([3, 0, 0]), judged - 1, rewards * [0, 1, 1] + np.array([0.5, -2, 2])
    )
    names = [name for name in catalog.METRICS if name != "bleu" or translation.has_bleu()]
    new, old = (catalog.measure(names, wanted, each) for each in (good, bad))
    assert list(new) == names
    for name in names:
        metric = catalog.METRICS[name]
        value, bounds = catalog.value(name, new[name]), catalog.intervals(name, new[name], 400, 1)
        assert bounds[f"{name}_low"] <= value <= bounds[f"{name}_high"]
        if metric.top is not None:
            assert 0 <= value <= metric.top
        first, second = metric.outcomes(new[name]), metric.outcomes(old[name])
        assert first.value() == pytest.approx(value)
        found = compare(first, second, metric.lower, resamples=400)
        assert found.chance + compare(second, first, metric.lower, resamples=400).chance == pytest.approx(1)
        if metric.neutral or name in ("leaks", "canaries", "accuracy"):
            continue
        assert found.gain > 0, name
        assert found.chance > 0.9, name
        assert found.won > found.lost, name


def test_a_mean_is_the_mean_and_a_corpus_metric_is_that_of_the_corpus() -> None:
    counts = catalog.measure(["rouge_l", "chrf", "length_ratio"], References(LONG), Answers(GOOD))
    wanted = np.mean([rouge_l(*pair) for pair in zip(LONG, GOOD, strict=True)])
    assert catalog.value("rouge_l", counts["rouge_l"]) == pytest.approx(wanted)
    assert catalog.value("length_ratio", counts["length_ratio"]) == 1.0
    assert catalog.METRICS["chrf"].outcomes(counts["chrf"]).value() != pytest.approx(
        catalog.METRICS["chrf"].outcomes(counts["chrf"]).scores.mean()
    )


def test_a_row_that_was_not_judged_counts_for_nothing() -> None:
    answers = Answers(["x"] * 3, judged=np.array([1.0, np.nan, 0.5]))
    counts = catalog.measure(["judge"], References(["x"] * 3), answers)["judge"]
    assert catalog.value("judge", counts) == 0.75


def test_unknown_metrics_are_named() -> None:
    with pytest.raises(ParamsError, match="rouge") as caught:
        catalog.check_names(["chrf", "rouge"])
    assert "rouge_l" in str(caught.value)


def test_counts_are_stored_without_texts(tmp_path: Path) -> None:
    counts = catalog.measure(["rouge_l", "chrf"], References(LONG), Answers(GOOD))
    save_counts(tmp_path, np.arange(40), counts, "settings")
    first = (tmp_path / "test_answers.npz").read_bytes()
    save_counts(tmp_path, np.arange(40), counts, "settings")
    assert (tmp_path / "test_answers.npz").read_bytes() == first, "the same answers are the same bytes"
    loaded = load_counts(tmp_path)
    assert loaded is not None
    assert loaded.settings == "settings"
    np.testing.assert_array_equal(loaded.rows, np.arange(40))
    np.testing.assert_array_equal(loaded.counts["chrf"], counts["chrf"])
    assert load_counts(tmp_path / "missing") is None
    for broken in (b"broken", first[:200]):
        (tmp_path / "test_answers.npz").write_bytes(broken)
        assert load_counts(tmp_path) is None
