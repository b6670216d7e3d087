"""Regression: scaling, loss, figures against SciPy and numpy, answers, plots."""

import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from raypath.components import DataError
from raypath.components.evaluation.plots import style
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task

DICE = np.random.default_rng(2)
TARGETS = (DICE.normal(size=(60, 2)) * [3.0, 200.0] + [5.0, -1000.0]).astype(np.float32)
PREDICTIONS = TARGETS + DICE.normal(size=(60, 2)) * [2.0, 50.0]


def metadata(*labels: str) -> ModelMetadata:
    return ModelMetadata(task="regression", labels=labels, label_kind="number", max_length=8)


def test_the_head_answers_in_standard_deviations_of_the_training_targets() -> None:
    task = load_task(metadata("height", "weight")).fit(TARGETS)
    wide = TARGETS.astype(np.float64)
    np.testing.assert_allclose(task.metadata.means, wide.mean(axis=0))
    np.testing.assert_allclose(task.metadata.scales, np.sqrt(((wide - wide.mean(axis=0)) ** 2).mean(axis=0)))
    outputs = DICE.normal(size=(60, 2)).astype(np.float32)
    standard = (wide - wide.mean(axis=0)) / wide.std(axis=0)
    found = task.loss(torch.from_numpy(outputs), {"targets": torch.from_numpy(TARGETS)})
    assert float(found) == pytest.approx(((outputs - standard) ** 2).mean(axis=1).sum(), rel=1e-5)
    np.testing.assert_allclose(task.decode(outputs), outputs * wide.std(axis=0) + wide.mean(axis=0))
    np.testing.assert_allclose(task.decode(standard), TARGETS, rtol=1e-6)
    assert task.calibrate(TARGETS, outputs) == task.metadata
    again = load_task(ModelMetadata.model_validate_json(task.metadata.model_dump_json()))
    np.testing.assert_array_equal(again.decode(outputs), task.decode(outputs))


def test_a_constant_target_is_learnt_as_itself() -> None:
    for value in (0.0, 7.3, 1e9, -0.1):
        task = load_task(metadata("price")).fit(np.full((7, 1), value, np.float32))
        assert task.metadata.scales == (1.0,)
        assert task.decode(np.zeros((1, 1)))[0, 0] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (np.array([[1.0], [np.nan]], np.float32), "target price of row 1 of train is NaN or infinite"),
        (np.array([[np.inf]], np.float32), "target price of row 0"),
        (np.ones((3, 2), np.float32), r"targets of train of shape \(3, 2\); wanted 1 numbers a row: price"),
        (np.array([1, 2]), "wanted 1 numbers a row"),
    ],
)
def test_targets_that_are_no_numbers_are_refused(targets, told) -> None:
    with pytest.raises(DataError, match=told) as caught:
        load_task(metadata("price")).fit(targets)
    assert "\n" not in str(caught.value)


def test_figures_of_one_target() -> None:
    actual, prediction = TARGETS[:, :1].astype(np.float64), PREDICTIONS[:, :1]
    found = load_task(metadata("height")).metrics(TARGETS[:, :1], prediction)
    missed = actual - prediction
    assert set(found) == {"mse", "rmse", "mae", "r2", "spearman", "pearson"}
    assert found["mse"] == pytest.approx((missed**2).mean())
    assert found["rmse"] == pytest.approx(np.sqrt((missed**2).mean()))
    assert found["mae"] == pytest.approx(np.abs(missed).mean())
    assert found["r2"] == pytest.approx(1 - (missed**2).sum() / ((actual - actual.mean()) ** 2).sum())
    assert found["pearson"] == pytest.approx(np.corrcoef(actual[:, 0], prediction[:, 0])[0, 1])
    ranks = [stats.rankdata(side[:, 0]) for side in (actual, prediction)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_figures_of_several_targets_are_means_with_each_by_name() -> None:
    found = load_task(metadata("height", "weight")).metrics(TARGETS, PREDICTIONS)
    for t, name in enumerate(("height", "weight")):
        alone = load_task(metadata(name)).metrics(TARGETS[:, t : t + 1], PREDICTIONS[:, t : t + 1])
        assert {key: found[f"{key}/{name}"] for key in alone} == alone
    for key in ("mse", "r2", "spearman"):
        assert found[key] == pytest.approx((found[f"{key}/height"] + found[f"{key}/weight"]) / 2)


def test_figures_are_numbers_where_they_are_undefined() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for targets, predictions in (
            (np.ones((5, 1)), np.zeros((5, 1))),
            (np.arange(5.0)[:, None], np.ones((5, 1))),
            (np.ones((1, 1)), np.ones((1, 1))),
        ):
            task = load_task(metadata("price"))
            found = task.metrics(targets, predictions) | task.intervals(targets, predictions, 50, 0)
            assert all(np.isfinite(value) for value in found.values())
            assert found["spearman"] == found["pearson"] == 0.0


def test_answers_and_columns_have_the_targets_names() -> None:
    decoded = np.array([[1.5, -3.0], [2.0, 0.0]])
    one, two = load_task(metadata("height")), load_task(metadata("height", "weight"))
    assert [a.model_dump() for a in one.predictions(decoded[:, :1])] == [{"values": {"height": v}} for v in (1.5, 2.0)]
    assert two.predictions(decoded)[0].model_dump() == {"values": {"height": 1.5, "weight": -3.0}}
    assert {k: v.to_pylist() for k, v in one.columns(decoded[:, :1]).items()} == {"predicted": [1.5, 2.0]}
    columns = two.columns(decoded) | two.target_columns(decoded.astype(np.float32))
    assert list(columns) == ["predicted_height", "predicted_weight", "label_height", "label_weight"]
    assert columns["label_weight"].to_pylist() == [-3.0, 0.0]


@pytest.mark.parametrize("targets", [1, 2, 5, 8])
def test_plots_draw_without_a_warning(targets: int, tmp_path) -> None:
    names = tuple(f"价格 {n}" for n in range(targets))
    wide = DICE.normal(size=(30, targets))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in load_task(metadata(*names)).plots(wide.astype(np.float32), wide * 0.5, {}).items():
            assert style.save(figure, tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
