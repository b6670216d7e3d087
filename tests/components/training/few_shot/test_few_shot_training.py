"""Methods for few rows: they learn, resume exactly, repeat exactly, and say what they cannot do."""

import dataclasses
import hashlib
import logging
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.compatibility import check_method
from raypath.components.training.few_shot.contrastive import PairPlan, pair_loss, paired_order
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import CONTRASTIVE_PASSES, ResolvedParams
from tests.forks import forks
from tests.tiny import LABELS, rows

METADATA = ModelMetadata(task="text_classification", labels=LABELS, max_length=64)
PARAMS = ResolvedParams(
    method="contrastive", epochs=1, lr=1e-3, batch_tokens=256, memory="full", checkpoint_seconds=0.0, metric="accuracy"
)


def _training(base: Path, scratch: Path | None = None, train: Any = None, **changes: Any) -> Training:
    job = TrainingJob(
        task=load_task(METADATA),
        folder=base,
        train=train or rows(32),
        valid=rows(100, seed=1),
        params=PARAMS.override(changes),
        seed=3,
        threads=1,
        scratch=scratch,
    )
    return start_training(job)


def _digest(training: Training) -> str:
    seen = hashlib.sha256()
    for name, weight in sorted(training.model.state_dict().items()):
        seen.update(name.encode() + np.ascontiguousarray(weight.numpy()).tobytes())
    return seen.hexdigest()


@pytest.fixture(scope="module")
def whole(base: Path) -> tuple[str, float]:
    """The digest of a contrastive training that was left alone, and its accuracy."""
    training = _training(base)
    accuracy = training.run()["accuracy"]
    return _digest(training), accuracy


def test_it_learns_from_32_rows_and_repeats_exactly(base: Path, whole: tuple[str, float]) -> None:
    assert whole[1] > 0.85
    again = _training(base)
    again.run()
    assert _digest(again) == whole[0]


def test_a_linear_probe_changes_the_head_alone(base: Path) -> None:
    training = _training(base, method="linear_probe")
    before = {name: weight.clone() for name, weight in training.model.state_dict().items()}
    assert training.run()["accuracy"] > 0.8
    assert training.steps == 0
    changed = {n for n, weight in training.model.state_dict().items() if not torch.equal(weight, before[n])}
    assert changed == {"classifier.weight", "classifier.bias"}


def _killed(base: Path, scratch: Path, step: int) -> None:
    training = _training(base, scratch)

    def on_step(done: int, *_: Any) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    training.job.on_step = on_step
    training.run()


def test_a_kill_changes_no_bit(base: Path, whole: tuple[str, float], tmp_path: Path) -> None:
    for step in (9, 23):
        process = forks().Process(target=_killed, args=(base, tmp_path, step))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    training = _training(base, tmp_path)
    assert training.resume_point is not None
    assert training.resume_point.state["step"] >= 20
    assert training.run()["accuracy"] == whole[1]
    assert _digest(training) == whole[0]


def test_batches_have_pairs_of_every_class_and_each_row_twenty_times() -> None:
    train = rows(40)
    train = dataclasses.replace(train, targets=np.arange(40) // 4)
    plan = PairPlan(train, 400, seed=1, epoch=0)
    assert Counter(np.concatenate(list(plan)).tolist()) == dict.fromkeys(range(40), CONTRASTIVE_PASSES)
    order = paired_order(train.targets, np.random.default_rng(0))
    assert (train.targets[order].reshape(-1, 2)[:, 0] == train.targets[order].reshape(-1, 2)[:, 1]).all()
    assert [step.tolist() for step in PairPlan(train, 400, seed=1, epoch=0)] == [step.tolist() for step in plan]
    assert [step.tolist() for step in PairPlan(train, 400, seed=1, epoch=1)] != [step.tolist() for step in plan]


def test_the_loss_is_the_error_of_the_cosines() -> None:
    points = torch.eye(3)[[0, 0, 1]]
    assert pair_loss(points, torch.tensor([0, 0, 1])).item() == 0
    assert pair_loss(points, torch.tensor([0, 1, 1])).item() == pytest.approx(1 + 1 / 2)
    assert pair_loss(points[:1], torch.tensor([0])).item() == 0


def test_a_class_with_a_single_row_is_named(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = rows(32)
    alone = train.subset(np.concatenate([np.flatnonzero(train.targets == 0), np.flatnonzero(train.targets == 1)[:1]]))
    with caplog.at_level(logging.WARNING, "raypath"):
        training = _training(base, train=alone, epochs=1)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "raypath"]
    assert line.startswith("1 class with a single row in train (great): contrastive learning has no pair of it")
    assert np.isfinite(training.run()["log_loss"])


@pytest.mark.parametrize(
    ("changes", "metadata", "message"),
    [
        ({"workers": 2}, {}, "finetune.method=contrastive trains with one worker"),
        ({"objective.focal": 2.0}, {}, "finetune.method=contrastive fits a plain logistic regression"),
        ({}, {"label_kind": "set"}, "is for one class a row; .* labels of kind set"),
        ({}, {"label_kind": "number", "task": "regression"}, "is for one class a row; .* labels of kind number"),
    ],
)
def test_what_a_fitted_head_cannot_do_is_told(changes: Any, metadata: Any, message: str) -> None:
    task = load_task(METADATA.model_copy(update=metadata))
    with pytest.raises((DataError, ParamsError), match=message):
        check_method(task, PARAMS.override(changes))
    check_method(task, ResolvedParams())
