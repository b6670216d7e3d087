"""Without a champion a version is compared with its base, or with always the most frequent class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raypath.components.core.artifacts import Dataset, Model, Report
from raypath.components.inference.batch.baseline import decide_first, majority
from raypath.components.registry.evidence import Rules
from tests.tiny_classifier import tiny_classifier, tiny_dataset, tiny_report

NONE = "there was no champion"
UNLESS = "not better, which registry.beat_baseline requires"
STRICT = Rules(beat_baseline=True)


def _language_report(**metrics: float) -> Report:
    model = Model(task="text_generation", label_kind="none", base="hf://team/base", max_length=64)
    return Report(
        model=model, data=Dataset(rows=10), metrics={k.replace("base_", "before/"): v for k, v in metrics.items()}
    )


@pytest.mark.parametrize(
    ("metric", "metrics", "promoted", "reason"),
    [
        ("chrf", {"chrf": 40.5, "base_chrf": 20.0}, True, f"chrf 40.5000 against 20.0000 of its base; {NONE}"),
        ("chrf", {"chrf": 12.0, "base_chrf": 20.0}, False, f"chrf 12.0000 against 20.0000 of its base, {UNLESS}"),
        ("loss", {"loss": 1.5, "base_loss": 1.0}, False, f"loss 1.5000 against 1.0000 of its base, {UNLESS}"),
        ("loss", {"loss": 1.0, "base_loss": 1.5}, True, f"loss 1.0000 against 1.5000 of its base; {NONE}"),
        (
            "exact_match",
            {"exact_match": 0.0, "base_exact_match": 0.0, "loss": 1.0, "base_loss": 2.0},
            True,
            f"exact_match 0.0000 as its base, loss 1.0000 against 2.0000 of its base; {NONE}",
        ),
        (
            "exact_match",
            {"exact_match": 0.5, "base_exact_match": 0.5, "loss": 2.0, "base_loss": 2.0},
            False,
            f"exact_match 0.5000 against 0.5000 of its base, {UNLESS}",
        ),
        ("rouge_l", {"rouge_l": 0.1}, True, f"rouge_l 0.1000; {NONE}"),
        ("judge", {"judge": 0.1, "loss": 2.0, "base_loss": 1.0}, True, f"judge 0.1000; {NONE}"),
    ],
)
def test_a_language_model_has_to_be_better_than_its_base(
    metric: str, metrics: dict[str, float], promoted: bool, reason: str
) -> None:
    found = decide_first(_language_report(**metrics), metric, STRICT)
    assert (found.promote, found.reason) == (promoted, reason)
    found = decide_first(_language_report(**metrics), metric, Rules())
    assert (found.promote, found.reason) == (True, reason.replace(UNLESS, f"not better; {NONE}"))


def test_a_classifier_has_to_be_better_than_always_the_most_frequent_class(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "model")
    labels = ["good"] * 60 + ["bad"] * 30 + ["ok"] * 10
    data = tiny_dataset(tmp_path / "data", model, rows=100, labels=labels)
    better, worse = (tiny_report(tmp_path / name, model, data, right) for name, right in (("a", 0.9), ("b", 0.55)))
    found = decide_first(better, "accuracy", STRICT)
    assert (found.promote, found.reason) == (
        True,
        "accuracy 0.9000 against 0.6000 of always good; there was no champion",
    )
    found = decide_first(worse, "accuracy", STRICT)
    assert (found.promote, found.reason) == (False, f"accuracy 0.5500 against 0.6000 of always good, {UNLESS}")
    assert not decide_first(worse, "log_loss", STRICT).promote
    for metric in ("ece", "recall/good"):
        assert decide_first(worse, metric, STRICT).reason.endswith("; there was no champion"), "no baseline is fair"


def test_a_regression_has_no_baseline(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "model", labels=("price",), kind="number")
    report = Report(model=model, data=Dataset(rows=1), metrics={"r2": -3.0})
    assert decide_first(report, "r2", STRICT).reason == "r2 -3.0000; there was no champion"


def test_the_majority_has_the_shares_of_the_classes_as_probabilities() -> None:
    label, found = majority(np.array([2, 2, 2, 0]), ("a", "b", "c"))
    assert label == "c"
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx(2 * 0.75 / 1.75 / 3)
    assert found["log_loss"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
