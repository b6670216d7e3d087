"""Weighted metrics against the task's own, on rows that are repeated as often as they weigh."""

import warnings

import numpy as np
import pytest

from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task

ROWS = 60


def _task(kind: LabelKind, task: str, labels: tuple[str, ...]):
    return load_task(ModelMetadata(task=task, labels=labels, label_kind=kind, max_length=8, base="x"))


def _classes(rng: np.random.Generator):
    task = _task(LabelKind.STRING, "text_classification", ("a", "b", "c", "d"))
    targets = rng.integers(0, 4, ROWS)
    return task, targets, task.decode(rng.normal(size=(ROWS, 4)) + 1.5 * np.eye(4)[targets])


def _sets(rng: np.random.Generator):
    task = _task(LabelKind.SET, "text_classification", ("a", "b", "c"))
    targets = (rng.random((ROWS, 3)) < 0.4).astype(np.float32)
    return task, targets, task.decode(np.round(rng.normal(size=(ROWS, 3)) + 1.5 * targets - 0.7, 1))  # with ties


def _numbers(rng: np.random.Generator):
    task = _task(LabelKind.NUMBER, "regression", ("height", "age"))
    targets = np.round(rng.normal(size=(ROWS, 2)), 1) + 1e4
    return task, targets.astype(np.float64), targets + rng.normal(size=(ROWS, 2))


@pytest.mark.parametrize("make", [_classes, _sets, _numbers])
def test_every_metric_by_weights_is_that_of_repeated_rows(make) -> None:
    rng = np.random.default_rng(5)
    task, targets, decoded = make(rng)
    draws = rng.multinomial(ROWS, np.full(ROWS, 1 / ROWS), size=4)
    names = task.metrics(targets, decoded)
    assert len(names) > 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = [np.repeat(np.arange(ROWS), drawn) for drawn in draws]
        repeated = [task.metrics(targets[rows], decoded[rows]) for rows in chosen]
    for name, value in names.items():
        outcomes = task.outcomes(name, targets, decoded)
        assert not outcomes.repeated, f"{name} has a way of its own"
        assert outcomes.value() == pytest.approx(value, abs=1e-9), name
        found = outcomes.metric(outcomes.rows)(draws.astype(np.float64))
        for wanted, got in zip(repeated, found, strict=True):
            assert got == pytest.approx(wanted[name], abs=1e-9), name


def test_a_row_counts_by_its_own_score() -> None:
    rng = np.random.default_rng(1)
    task, targets, decoded = _classes(rng)
    right = task.predicted(decoded) == targets
    np.testing.assert_array_equal(task.outcomes("macro_f1", targets, decoded).scores, right)
    sets, wanted, given = _sets(rng)
    np.testing.assert_allclose(
        sets.outcomes("micro_f1", wanted, given).scores, (sets.predicted(given) == wanted).mean(axis=1)
    )
    numbers, wanted, given = _numbers(rng)
    assert numbers.outcomes("mae/age", wanted, given).scores == pytest.approx(
        -np.abs(wanted - given)[:, 1] / wanted[:, 1].std()
    )
    np.testing.assert_array_equal(
        task.outcomes("accuracy", targets, decoded).take(np.arange(3)).scores, right[:3].astype(float)
    )
