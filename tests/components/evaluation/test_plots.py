"""The plots of a report show what they say: which side is true, which bar is worst, where a model is too sure."""

from typing import Any

import numpy as np
import pytest

from raypath.components.evaluation.plots import classification, regression

LABELS = ("no", "yes")


def _ticks(axes: Any) -> list[str]:
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    figure = classification.confusion(np.array([0, 0, 0, 1]), np.array([1, 1, 0, 1]), LABELS)
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[1 / 3, 2 / 3], [0, 1]])
    counts = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "1", (0, 1): "2", (1, 1): "1"}
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")
    assert figure.get_figwidth() > figure.get_figheight(), "the color bar has a place beside the square"


def test_of_many_classes_the_pairs_most_often_confused_come_first() -> None:
    labels = tuple(f"l{n}" for n in range(classification.MATRIX + 1))
    axes = classification.confusion(
        np.array([5, 1, 1, 1, 7, 7, 7, 7]), np.array([3, 2, 2, 2, 7, 7, 7, 7]), labels
    ).axes[0]
    assert _ticks(axes) == ["l1 → l2", "l5 → l3"]
    assert [bar.get_width() for bar in axes.patches] == [3, 1]
    assert axes.yaxis_inverted(), "the first is at the top"


def test_the_reliability_of_a_bin_is_the_share_of_right_rows() -> None:
    sure = np.array([0.9, 0.9, 0.6, 0.6])  # half of the first two are right, both of the others
    figure = classification.reliability(np.array([0, 1, 0, 0]), np.stack([sure, 1 - sure], axis=1), 0.1)
    accuracy, rows = figure.axes
    low, high = 9.5 / 15, 13.5 / 15
    assert [bar.get_height() for bar in accuracy.patches] == pytest.approx([low, 0.5, high - 0.5, 1 - low])
    assert [bar.get_height() for bar in rows.patches if bar.get_height()] == [2, 2]


def test_the_worst_class_is_at_the_top() -> None:
    axes = classification.per_class(np.array([0, 1, 1]), [0.9, 0.2], LABELS).axes[0]
    assert _ticks(axes) == ["yes (2)", "no (1)"]
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.9]
    assert axes.yaxis_inverted()


def test_residuals_are_actual_less_predicted() -> None:
    actual, prediction = np.array([[1.0], [2.0]]), np.array([[4.0], [1.5]])
    for draw, wanted in ((regression.predicted, [[1, 4], [2, 1.5]]), (regression.residuals, [[4, -3], [1.5, 0.5]])):
        np.testing.assert_allclose(draw(actual, prediction, ("price",)).axes[0].collections[0].get_offsets(), wanted)
