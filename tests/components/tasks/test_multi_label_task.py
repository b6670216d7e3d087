"""Several labels a row: figures against loops over rows and classes, answers, columns, plots."""

import warnings

import numpy as np
import pytest

from raypath.components.evaluation.plots import style
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task, task_type

LABELS = ("red", "green", "blue", "never")
METADATA = ModelMetadata(task="text_classification", labels=LABELS, label_kind="set", max_length=8)
DICE = np.random.default_rng(5)
TARGETS = (DICE.random((80, 4)) < [0.5, 0.3, 0.2, 0.0]).astype(np.float32)
DECODED = np.clip(0.3 * TARGETS + 0.6 * DICE.random((80, 4)) + [0.1, 0.0, 0.0, -0.2], 0.01, 0.99)
FOUND = load_task(METADATA).metrics(TARGETS, DECODED)


def f1(p: float, r: float) -> float:
    return 2 * p * r / (p + r) if p + r else 0.0


def prf(truth: set, prediction: set) -> tuple[float, float, float]:
    hits = len(truth & prediction)
    p, r = hits / len(prediction) if prediction else 0.0, hits / len(truth) if truth else 0.0
    return p, r, f1(p, r)


ROWS = [({*np.flatnonzero(t)}, {*np.flatnonzero(d >= 0.5)}) for t, d in zip(TARGETS, DECODED, strict=True)]
CLASSES = [({*np.flatnonzero(TARGETS[:, k])}, {*np.flatnonzero(DECODED[:, k] >= 0.5)}) for k in range(4)]


def test_figures_per_class_and_their_averages() -> None:
    each = np.array([prf(*pair) for pair in CLASSES])
    for k, label in enumerate(LABELS):
        assert [FOUND[f"{name}/{label}"] for name in ("precision", "recall", "f1")] == pytest.approx(list(each[k]))
    shares = TARGETS.sum(axis=0) / TARGETS.sum()
    for average, values in (("macro", each.mean(axis=0)), ("weighted", shares @ each)):
        assert [FOUND[f"{average}_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(list(values))
    everything = (
        {(n, k) for n, (t, _) in enumerate(ROWS) for k in t},
        {(n, k) for n, (_, g) in enumerate(ROWS) for k in g},
    )
    assert [FOUND[f"micro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(list(prf(*everything)))


def test_figures_by_row_where_an_empty_row_that_stays_empty_is_right() -> None:
    assert any(not truth and not prediction for truth, prediction in ROWS)
    each = np.array([prf(*pair) if pair != (set(), set()) else (1.0, 1.0, 1.0) for pair in ROWS])
    names = ("samples_precision", "samples_recall", "samples_f1")
    assert [FOUND[name] for name in names] == pytest.approx(list(each.mean(axis=0)))
    assert FOUND["subset_accuracy"] == pytest.approx(np.mean([truth == prediction for truth, prediction in ROWS]))
    assert FOUND["hamming_loss"] == pytest.approx(sum(len(t ^ g) for t, g in ROWS) / 320)


def test_figures_of_probabilities() -> None:
    averages = []
    for k in range(3):  # no row has the fourth
        order = np.argsort(-DECODED[:, k])
        there = TARGETS[order, k]
        averages.append(np.sum(np.cumsum(there) / np.arange(1, 81) * there) / there.sum())
    assert FOUND["mean_average_precision"] == pytest.approx(np.mean(averages))
    loss = -(TARGETS * np.log(DECODED) + (1 - TARGETS) * np.log(1 - DECODED)).mean()
    assert FOUND["log_loss"] == pytest.approx(loss, rel=1e-6)
    sure, right = np.maximum(DECODED, 1 - DECODED).ravel(), ((DECODED >= 0.5) == TARGETS).ravel()
    bins = [(sure >= b / 15) & ((sure < (b + 1) / 15) | (b == 14)) for b in range(15)]
    gaps = sum(abs(right[inside].sum() - sure[inside].sum()) for inside in bins) / 320
    assert FOUND["ece"] == pytest.approx(gaps)


def test_all_figures_are_numbers_even_where_nothing_is_there() -> None:
    for targets in (np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32)):
        for decoded in (np.full((3, 4), 0.1), np.full((3, 4), 0.9), np.zeros((3, 4)), np.ones((3, 4))):
            found = load_task(METADATA).metrics(targets, decoded)
            found |= load_task(METADATA).intervals(targets, decoded, 20, 0)
            assert all(np.isfinite(value) for value in found.values())
    assert load_task(METADATA).metrics(np.zeros((3, 4)), np.full((3, 4), 0.1))["samples_f1"] == 1.0


def test_decode_is_a_sigmoid_without_overflow() -> None:
    logits = np.array([[0.0, 2.0, -800.0, 800.0]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = load_task(METADATA).decode(logits)
    np.testing.assert_allclose(decoded, [[0.5, 1 / (1 + np.exp(-2.0)), 0.0, 1.0]], atol=1e-12)


def test_answers_and_columns_name_the_classes() -> None:
    task = load_task(METADATA)
    decoded = np.array([[0.9, 0.2, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4]])
    first, second = task.predictions(decoded)
    assert first.model_dump() == {"labels": ["red", "blue"], "scores": dict(zip(LABELS, decoded[0], strict=True))}
    assert second.model_dump()["labels"] == []
    columns = task.columns(decoded)
    assert columns["predicted"].to_pylist() == [["red", "blue"], []]
    np.testing.assert_allclose(columns["scores"].to_pylist(), decoded, rtol=1e-6)
    assert task.target_columns(TARGETS)["label"].to_pylist() == [[LABELS[k] for k in sorted(t)] for t, _ in ROWS]
    response = task.response(model="m", version=1, predictions=task.predictions(decoded))
    assert '"labels":["red","blue"]' in response.model_dump_json()


def test_the_class_for_sets_goes_by_the_name_of_text_classification() -> None:
    assert task_type("text_classification", "set") is type(load_task(METADATA))
    assert task_type("text_classification", "int") is task_type("text_classification")
    assert load_task(METADATA).score(None, {"mean_average_precision": 0.3}) == 0.3
    assert load_task(METADATA).score("hamming_loss", {"hamming_loss": 0.3}) == -0.3


def test_plots_draw(tmp_path) -> None:
    for name, figure in load_task(METADATA).plots(TARGETS, DECODED, FOUND).items():
        assert style.save(figure, tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
