"""Thresholds against trying every one of them."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from raypath.components.evaluation.thresholds import one_class, two_classes
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.tasks.objectives.params import ObjectiveParams


def positive(targets: np.ndarray, predictions: np.ndarray) -> float:
    """F1 of class 1, in a hundredth of the time that sklearn takes for so few rows."""
    total = int(targets.sum() + predictions.sum())
    return 2 * int((targets * predictions).sum()) / total if total else 0.0


def macro(targets: np.ndarray, predictions: np.ndarray) -> float:
    return (positive(targets, predictions) + positive(1 - targets, 1 - predictions)) / 2


def test_the_figures_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 1.0):
        targets, predictions = (rng.random(20) < 0.4).astype(int), (rng.random(20) < share).astype(int)
        assert positive(targets, predictions) == pytest.approx(f1_score(targets, predictions, zero_division=0.0))
        both = f1_score(targets, predictions, average="macro", labels=[0, 1], zero_division=0.0)
        assert macro(targets, predictions) == pytest.approx(both)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(("choose", "figure"), [(two_classes, macro), (one_class, positive)])
def test_no_threshold_is_better(seed: int, choose, figure) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(2, 40))
    # Few distinct probabilities, so that many rows are tied; 0 and 1 among them.
    probabilities = rng.integers(0, rng.integers(2, 12), rows) / 10
    targets = (rng.random(rows) < rng.choice([0.1, 0.5, 0.9])).astype(int)
    chosen = choose(targets, probabilities)
    tried = {t: figure(targets, (probabilities >= t).astype(int)) for t in [*probabilities, *(probabilities + 0.01), 2]}
    if targets.any() and not (choose is two_classes and targets.all()):
        assert figure(targets, (probabilities >= chosen).astype(int)) == pytest.approx(max(tried.values()))
    else:
        assert chosen == 0.5


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    assert one_class(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.9, 0.95])) == 0.5
    assert one_class(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.8, 0.95])) == pytest.approx(0.7)
    assert two_classes(np.array([0, 1]), np.array([0.1, 0.2])) == pytest.approx(0.15)
    # Any of three cuts leaves the F1 of one hit out of 2 at its best; 0.55 is nearest.
    assert one_class(np.array([1, 0]), np.array([0.6, 0.5])) == pytest.approx(0.55)


def test_neighbouring_floats_are_told_apart() -> None:
    low, high = 0.3, np.nextafter(0.3, 1.0)
    chosen = one_class(np.array([0, 1]), np.array([low, high]))
    assert low < chosen <= high


def test_a_part_that_cannot_tell_leaves_a_half() -> None:
    probabilities = np.array([0.1, 0.9])
    assert one_class(np.zeros(2), probabilities) == 0.5
    assert two_classes(np.ones(2), probabilities) == two_classes(np.zeros(2), probabilities) == 0.5
    assert one_class(np.ones(2), probabilities) <= 0.1


def test_two_classes_follow_their_threshold_everywhere() -> None:
    metadata = ModelMetadata(task="text_classification", labels=("no", "yes"), label_kind="bool", max_length=8)
    task = load_task(metadata, ObjectiveParams(threshold="valid"))
    targets = np.array([0, 0, 0, 0, 1, 1])
    decoded = np.stack([1 - (p := np.array([0.05, 0.1, 0.1, 0.2, 0.3, 0.4])), p], axis=1)
    assert task.metrics(targets, decoded)["recall/yes"] == 0.0
    settled = task.calibrate(targets, decoded)
    assert settled.thresholds == (pytest.approx(0.25),)
    task = load_task(ModelMetadata.model_validate_json(settled.model_dump_json()))
    assert task.metrics(targets, decoded)["macro_f1"] == 1.0
    answers = [answer.model_dump() for answer in task.predictions(decoded)]
    assert answers[5] == {"label": False, "score": 0.4, "scores": {"no": 0.6, "yes": 0.4}}
    columns = task.columns(decoded)
    assert columns["predicted"].to_pylist() == ["no"] * 4 + ["yes"] * 2
    np.testing.assert_allclose(columns["score"].to_numpy(), [0.95, 0.9, 0.9, 0.8, 0.3, 0.4], rtol=1e-6)
    assert not load_task(metadata).needs_calibration


def test_each_class_of_a_set_has_its_own() -> None:
    metadata = ModelMetadata(task="text_classification", labels=("a", "b", "c"), label_kind="set", max_length=8)
    task = load_task(metadata, ObjectiveParams(threshold="valid"))
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    decoded = np.array([[0.2, 0.6, 0.9], [0.3, 0.9, 0.9], [0.1, 0.8, 0.9], [0.05, 0.1, 0.1]])
    thresholds = task.calibrate(targets, decoded).thresholds
    assert thresholds == (pytest.approx(0.15), pytest.approx(0.7), 0.5)
    task = load_task(metadata.model_copy(update={"thresholds": thresholds}))
    assert [answer.labels for answer in task.predictions(decoded)] == [["a", "c"], ["a", "b", "c"], ["b", "c"], []]  # type: ignore[attr-defined]


def test_a_probability_at_its_threshold_is_enough() -> None:
    """So it is for a class of a set, for two classes with a threshold, and without one the first of equals counts."""
    decoded = np.array([[0.5, 0.5], [0.25, 0.75]])
    for kind, thresholds, predictions in (
        ("set", (), [[1, 1], [0, 1]]),
        ("set", (0.5, 0.75), [[1, 0], [0, 1]]),
        ("string", (0.5,), [1, 1]),
        ("string", (0.75,), [0, 1]),
        ("string", (), [0, 1]),
    ):
        metadata = ModelMetadata(
            task="text_classification", labels=("a", "b"), label_kind=kind, max_length=8, thresholds=thresholds
        )
        assert load_task(metadata).predicted(decoded).tolist() == predictions  # type: ignore[attr-defined]
