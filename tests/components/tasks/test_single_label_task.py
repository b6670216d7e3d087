"""One label a row: probabilities, answers in the user's own type, columns, and which way is better."""

import warnings
from typing import Any

import numpy as np
import pytest

from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.tasks.text_classification import TextClassification


def task(*labels: str, kind: str = "string", **fields: Any) -> Any:
    return load_task(ModelMetadata(task="text_classification", labels=labels, label_kind=kind, max_length=8, **fields))


def test_decode_is_a_softmax_without_overflow() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = task("a", "b", "c").decode(np.array([[0.0, 1.0, 2.0], [800.0, -800.0, 0.0]], np.float32))
    whole = 1 + np.e + np.e**2
    np.testing.assert_allclose(decoded, [[1 / whole, np.e / whole, np.e**2 / whole], [1.0, 0.0, 0.0]], rtol=1e-6)
    assert decoded.dtype == np.float64


@pytest.mark.parametrize(
    ("kind", "labels", "answer"),
    [("string", ("1", "2"), "2"), ("int", ("1", "2"), 2), ("bool", ("false", "true"), True)],
)
def test_answers_are_of_the_users_type(kind: str, labels: tuple[str, ...], answer: Any) -> None:
    [found] = task(*labels, kind=kind).predictions(np.array([[0.25, 0.75]]))
    assert found.model_dump() == {
        "label": answer,
        "score": 0.75,
        "scores": dict(zip(labels, (0.25, 0.75), strict=True)),
    }
    assert type(found.label) is type(answer)
    assert LabelKind.BOOL.restore("false") is False


def test_answers_and_columns_follow_the_threshold() -> None:
    decoded = np.array([[0.7, 0.3], [0.8, 0.2]])
    chosen = task("no", "yes", thresholds=(0.3,))
    assert [(found.label, found.score) for found in chosen.predictions(decoded)] == [("yes", 0.3), ("no", 0.8)]
    columns = chosen.columns(decoded) | chosen.target_columns(np.array([1, 0]))
    assert columns["predicted"].to_pylist() == columns["label"].to_pylist() == ["yes", "no"]
    assert columns["score"].to_pylist() == pytest.approx([0.3, 0.8])
    np.testing.assert_allclose(columns["scores"].to_pylist(), decoded, rtol=1e-6)


@pytest.mark.parametrize("metric", ["ece", "log_loss", "ece_low", "ece_high", "log_loss/a"])
def test_less_is_better_of_errors_their_intervals_and_their_classes(metric: str) -> None:
    assert TextClassification.is_lower(metric)
    assert task("a", "b").score(metric, {metric: 0.5}) == -0.5


@pytest.mark.parametrize("metric", ["macro_f1", "macro_f1_low", "f1/ece", "accuracy"])
def test_more_is_better_of_all_else(metric: str) -> None:
    assert not TextClassification.is_lower(metric)
    assert task("a", "b").score(metric, {metric: 0.5}) == 0.5
