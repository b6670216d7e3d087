"""The task `preference`: metrics, weights and messages, from log-probabilities that are given."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components import DataError, ParamsError
from raypath.components.core.columns import Column
from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.components.tasks.objectives.preference import OBJECTIVES
from raypath.components.tasks.preference import Preference, share_of_pairs

PAIRS = [name for name, objective in OBJECTIVES.items() if objective.pairs]
RECORDED = np.array(
    [
        [-10.0, 5, -12, 4, -11, -12],  # log-ratios 1 and 0
        [-20.0, 10, -9, 3, -18, -9],  # -2 and 0
        [-6.0, 2, -8, 2, -6, -5],  # 0 and -3
    ],
    np.float32,
)


def task_of(name: str, kind: str = "preference", label: str = "none", **objective: Any) -> Preference:
    labels = {"bool": ("false", "true"), "string": ("bad", "good")}.get(label, ())
    columns = (Column(name="answers", kind=kind),)
    metadata = ModelMetadata(task="preference", labels=labels, label_kind=label, max_length=64, columns=columns)
    made = load_task(metadata, ObjectiveParams(preference=name, **objective))
    assert isinstance(made, Preference)
    return made


def kto(**objective: Any) -> Preference:
    return task_of("kto", "messages", "bool", **objective)


def test_metrics_of_dpo_by_hand() -> None:
    found = task_of("dpo", beta=0.5).metrics(np.zeros(3, np.int64), RECORDED)
    differences = [0.5 * 1, 0.5 * -2, 0.5 * 3]
    assert found["reward_accuracy"] == pytest.approx(2 / 3)
    assert found["reward_margin"] == pytest.approx(sum(differences) / 3)
    assert found["loss"] == pytest.approx(sum(math.log1p(math.exp(-each)) for each in differences) / 3)
    assert found["perplexity"] == pytest.approx(math.exp(36 / 17))


def test_rewards_are_what_the_objective_compares() -> None:
    per_token = task_of("dpo_norm", beta=1.0).metrics(np.zeros(3, np.int64), RECORDED)
    assert per_token["reward_margin"] == pytest.approx((1 / 5 - 2 / 10 + 3 / 2) / 3)
    free = task_of("simpo", beta=1.0).metrics(np.zeros(3, np.int64), RECORDED)
    assert free["reward_margin"] == pytest.approx(((-2 + 3) + (-2 + 3) + (-3 + 4)) / 3)
    assert free["reward_accuracy"] == 1.0


@pytest.mark.parametrize("name", PAIRS)
def test_the_loss_of_training_is_that_of_validation(name: str) -> None:
    task = task_of(name)
    batch = {"targets": torch.zeros(3, dtype=torch.int64), "references": torch.from_numpy(RECORDED[:, 4:])}
    outputs = torch.from_numpy(RECORDED[:, :4]).requires_grad_()
    found = task.loss(outputs, batch)
    assert found.item() / 3 == pytest.approx(task.metrics(np.zeros(3, np.int64), RECORDED)["loss"], rel=1e-5)
    assert task.weight(batch) == 3
    weights = torch.tensor([0.0, 2.0, 0.0])
    alone = task.loss(outputs[1:2], {"targets": batch["targets"][1:2], "references": batch["references"][1:2]})
    assert task.loss(outputs, batch | {"row_weights": weights}).item() == pytest.approx(2 * alone.item())
    assert task.weight(batch | {"row_weights": weights}) == 2


@pytest.mark.parametrize("name", ["simpo", "orpo"])
def test_without_a_reference_the_rows_need_none(name: str) -> None:
    batch = {"targets": torch.zeros(3, dtype=torch.int64)}
    outputs = torch.from_numpy(RECORDED[:, :4])
    with_one = task_of(name).loss(outputs, batch | {"references": torch.from_numpy(RECORDED[:, 4:])})
    assert torch.equal(task_of(name).loss(outputs, batch), with_one)
    with pytest.raises(DataError, match="put the step `score_reference` before"):
        task_of("dpo").loss(outputs, batch)


def test_metrics_of_kto_compare_good_answers_with_bad_ones() -> None:
    targets = np.array([1, 0, 1])
    found = kto(beta=0.5).metrics(targets, RECORDED)
    assert found["reward_accuracy"] == 1.0  # log-ratios 1 and 0 against -2
    assert found["reward_margin"] == pytest.approx(0.5 * (0.5 + 2))
    # The reference point is the mean of 0, 0 and -3, at least 0.
    losses = [1 - 1 / (1 + math.exp(-0.5)), 1 - 1 / (1 + math.exp(-1.0)), 0.5]
    assert found["loss"] == pytest.approx(sum(losses) / 3)
    assert found["perplexity"] == pytest.approx(math.exp(16 / 7))


def test_good_and_bad_answers_can_count_alike() -> None:
    targets = np.array([1, 0, 1, 1])
    task = kto(class_weights="balanced").fit(targets)
    batch = {"targets": torch.tensor([1, 0]), "references": torch.from_numpy(RECORDED[:2, 4:])}
    assert task.weight(batch) == pytest.approx(4 / 6 + 2)
    outputs = torch.from_numpy(RECORDED[:2, :4])
    each = [kto().loss(outputs, batch | {"row_weights": torch.eye(2)[n]}).item() for n in range(2)]
    assert task.loss(outputs, batch).item() == pytest.approx(each[0] * 4 / 6 + each[1] * 2)


def test_the_share_of_pairs_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.integers(0, 9, 40), rng.integers(-2, 8, 31)
    wanted = np.mean([(a > b) + (a == b) / 2 for a in good for b in bad])
    assert share_of_pairs(good, bad) == pytest.approx(wanted)


def test_the_trained_model_generates_text() -> None:
    for task in (task_of("dpo"), kto()):
        made = task.trained_metadata
        assert (made.task, made.labels, made.label_kind) == ("text_generation", (), LabelKind.NONE)
        assert made.max_length == 64


@pytest.mark.parametrize(
    ("arguments", "objective", "told"),
    [
        (("dpo", "messages"), {}, "dpo takes pairs of responses; the rows are of kind messages"),
        (("dpo", "preference", "bool"), {}, "with labels of kind bool; give the columns prompt, chosen and rejected"),
        (("kto",), {}, "kto takes messages labelled true .good. or false; got preference"),
        (("kto", "messages"), {}, "got messages with labels of kind none; set -s read.label= to a column"),
        (("kto", "messages", "string"), {}, r"got messages with labels of kind string .bad, good.; set -s read.label="),
        (("dpo", "text"), {}, "got the input answers of kind text; wanted messages or preference"),
        (("dpo",), {"margin": 1.0}, "margin=1 does not suit dpo; leave it out; it is of simpo alone"),
        (("dpo",), {"label_smoothing": 0.5}, "label_smoothing=0.5 does not suit dpo; it is below 0.5"),
        (("ipo",), {"label_smoothing": 0.1}, "does not suit ipo; it is below 0.5, and for dpo, dpo_norm, simpo"),
        (("orpo",), {"class_weights": "balanced"}, "orpo has no classes to balance"),
        (("dpo",), {"focal": 1.0}, "does not support objective.focal"),
    ],
)
def test_what_an_objective_cannot_use_is_refused_in_one_line(arguments: Any, objective: Any, told: str) -> None:
    with pytest.raises((DataError, ParamsError), match=told) as caught:
        task_of(*arguments, **objective)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "label", "told"),
    [
        (
            "preference",
            "none",
            "takes conversations; the rows are pairs .* use the workflow preference, or",
        ),
        ("messages", "bool", "would learn the responses that are labelled false, too; set -s read.label=none"),
    ],
)
def test_rows_of_preferences_are_not_those_of_conversations(kind: str, label: str, told: str) -> None:
    columns = (Column(name="answers", kind=kind),)
    metadata = ModelMetadata(task="text_generation", labels=(), label_kind=label, max_length=64, columns=columns)
    with pytest.raises(DataError, match=told):
        load_task(metadata)


def test_answers_of_one_label_alone_are_refused() -> None:
    kto().check_targets(np.array([1, 0, 1]), "train")
    with pytest.raises(DataError, match="all answers of valid are good; kto needs both"):
        kto().check_targets(np.array([1, 1]), "valid")
    with pytest.raises(DataError, match="all answers of train are bad"):
        kto().fit(np.array([0, 0]))
