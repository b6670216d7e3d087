"""Every mixture of weights, smoothing and focus, against formulas written out in float64 numpy."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from raypath.components import DataError, ParamsError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.tasks.objectives.losses import class_weights, set_weights
from raypath.components.tasks.objectives.params import ObjectiveParams

MIXTURES = list(itertools.product(("none", "balanced"), (0.0, 0.5, 2.0), (0.0, 0.1)))
LABELS = ("a", "b", "c", "d")
DICE = np.random.default_rng(0)
LOGITS = DICE.normal(size=(50, 4)) * 3
CLASSES = DICE.choice(4, size=50, p=[0.6, 0.2, 0.15, 0.05])
SETS = (DICE.random((50, 4)) < [0.5, 0.2, 0.1, 0.05]).astype(np.float32)


def task(kind: str, targets: Any, **objective: Any) -> Any:
    metadata = ModelMetadata(task="text_classification", labels=LABELS, label_kind=kind, max_length=8)
    return load_task(metadata, ObjectiveParams(**objective)).fit(targets)


def loss_of(made: Any, targets: Any, logits: Any = LOGITS) -> torch.Tensor:
    outputs = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    value = made.loss(outputs, {"targets": torch.from_numpy(targets)})
    value.backward()
    assert torch.isfinite(outputs.grad).all()  # type: ignore[union-attr]
    return value.detach()


def by_hand_classes(weights: Any, focal: float, smoothing: float) -> float:
    total = 0.0
    for logits, target in zip(LOGITS, CLASSES, strict=True):
        p = np.exp(logits) / np.exp(logits).sum()
        for c in range(4):
            q = (1 - smoothing) * (c == target) + smoothing / 4
            total -= q * weights[c] * (1 - p[c]) ** focal * np.log(p[c])
    return total


def by_hand_sets(weights: Any, focal: float, smoothing: float) -> float:
    total = 0.0
    for (n, c), there in np.ndenumerate(SETS):
        p = 1 / (1 + np.exp(-LOGITS[n, c]))
        q = (1 - smoothing) * there + smoothing / 2
        total -= q * weights[1][c] * (1 - p) ** focal * np.log(p)
        total -= (1 - q) * weights[0][c] * p**focal * np.log(1 - p)
    return total / 4


@pytest.mark.parametrize(("balance", "focal", "smoothing"), MIXTURES)
def test_one_class_a_row(balance: str, focal: float, smoothing: float) -> None:
    made = task("string", CLASSES, class_weights=balance, focal=focal, label_smoothing=smoothing)
    weights = compute_class_weight("balanced", classes=np.arange(4), y=CLASSES) if balance == "balanced" else np.ones(4)
    assert float(loss_of(made, CLASSES)) == pytest.approx(by_hand_classes(weights, focal, smoothing), rel=1e-5)


@pytest.mark.parametrize(("balance", "focal", "smoothing"), MIXTURES)
def test_sets_of_classes(balance: str, focal: float, smoothing: float) -> None:
    made = task("set", SETS, class_weights=balance, focal=focal, label_smoothing=smoothing)
    weights = np.ones((2, 4))
    if balance == "balanced":
        weights = np.array([compute_class_weight("balanced", classes=np.arange(2), y=SETS[:, c]) for c in range(4)]).T
    assert float(loss_of(made, SETS)) == pytest.approx(by_hand_sets(weights, focal, smoothing), rel=1e-5)


def test_plain_losses_are_torchs_own() -> None:
    logits, wide = torch.tensor(LOGITS, dtype=torch.float32), torch.from_numpy(SETS)
    own = functional.cross_entropy(logits, torch.from_numpy(CLASSES), reduction="sum")
    torch.testing.assert_close(loss_of(task("int", CLASSES), CLASSES), own)
    own = functional.binary_cross_entropy_with_logits(logits, wide, reduction="none").mean(dim=1).sum()
    torch.testing.assert_close(loss_of(task("set", SETS), SETS), own)


@pytest.mark.parametrize(("kind", "targets"), [("string", CLASSES), ("set", SETS)])
@pytest.mark.parametrize("focal", [0.0, 0.5, 2.0])
def test_sure_answers_have_a_finite_loss_and_slope(kind: str, targets: Any, focal: float) -> None:
    made = task(kind, targets, focal=focal, label_smoothing=0.1, class_weights="balanced")
    assert np.isfinite(float(loss_of(made, targets, LOGITS * 100)))


def test_bfloat16_outputs_are_summed_in_float32() -> None:
    outputs = torch.tensor(LOGITS, dtype=torch.bfloat16)
    value = task("string", CLASSES).loss(outputs, {"targets": torch.from_numpy(CLASSES)})
    assert value.dtype == torch.float32


def test_a_class_without_rows_has_no_weight() -> None:
    assert class_weights(np.array([0, 0, 2]), 3).tolist() == [0.5, 0.0, 1.0]
    assert set_weights(np.array([[1, 0], [1, 0], [1, 1]])).tolist() == [[0.0, 0.75], [0.5, 1.5]]


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("string", np.array([0, 4])),
        ("string", np.array([-1, 2])),
        ("set", np.array([[0.0, 1.0, 0.0]])),
        ("set", np.array([[0.0, 1.0, 0.0, 0.5]])),
        ("set", np.array([0, 1])),
    ],
)
def test_targets_that_are_no_classes_of_the_model_are_refused(kind: str, targets: Any) -> None:
    with pytest.raises(DataError, match="wanted") as caught:
        task(kind, targets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind", "objective", "told"),
    [
        ("text_classification", "number", {}, "got labels of kind number; wanted class"),
        ("text_classification", "none", {}, "got labels of kind none"),
        ("regression", "string", {}, "task regression got labels of kind string; wanted number"),
        (
            "regression",
            "number",
            {"focal": 2.0},
            "does not support objective.focal; leave finetune.objective.focal out",
        ),
        ("text_classification", "set", {"mask": 0.3}, "does not support objective.mask"),
        ("text_classification", "int", {"threshold": "valid"}, "takes two classes, or several labels a row; got 4"),
        ("text_clasification", "int", {}, "unknown task text_clasification"),
        ("tests.tiny:LABELS", "int", {}, "is not a Task; subclass"),
        ("tests.tiny:Nothing", "int", {}, "cannot be imported"),
    ],
)
def test_a_task_refuses_what_it_cannot_use_in_one_line(name: str, kind: str, objective: Any, told: str) -> None:
    with pytest.raises((DataError, ParamsError), match=told) as caught:
        load_task(ModelMetadata(task=name, labels=LABELS, label_kind=kind, max_length=8), ObjectiveParams(**objective))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["class", "set", "number"])
def test_rows_count_with_their_weights(kind: str) -> None:
    targets = {"class": CLASSES, "set": SETS, "number": LOGITS.astype(np.float32) ** 2}[kind]
    label_kind = {"class": "string", "set": "set", "number": "number"}[kind]
    name = {"class": "text_classification", "set": "text_classification", "number": "regression"}[kind]
    metadata = ModelMetadata(task=name, labels=LABELS, label_kind=label_kind, max_length=8)
    made = load_task(metadata).fit(targets)
    weights = np.random.default_rng(1).random(len(targets)).astype(np.float32)
    alone = [loss_of(made, targets[n : n + 1], LOGITS[n : n + 1]).item() for n in range(len(targets))]
    batch = {"targets": torch.from_numpy(targets), "row_weights": torch.from_numpy(weights)}
    found = made.loss(torch.tensor(LOGITS, dtype=torch.float32), batch).item()
    assert found == pytest.approx(float(np.dot(alone, weights)), rel=1e-5)
    assert made.weight(batch) == pytest.approx(float(weights.sum()))
    assert made.weight({"targets": batch["targets"]}) == len(targets)
