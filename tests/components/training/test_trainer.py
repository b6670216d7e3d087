"""The training loop: it learns, it keeps the best weights, it passes over damaged checkpoints; kills: test_kills.py."""

import contextlib
import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from raypath.components.core.errors import DataError, ParamsError, StoreError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.checkpoints import checkpoint
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import start_training
from raypath.components.training.params import ResolvedParams
from tests.tiny import LABELS, rows

PARAMS = ResolvedParams(
    epochs=2, lr=1e-3, batch_tokens=256, dropout=0.1, checkpoint_seconds=0.0, metric="accuracy", frozen_layers=0
)


def _job(base: Path, scratch: Path | None, params: ResolvedParams = PARAMS, **more: object) -> TrainingJob:
    return TrainingJob(
        task=load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64)),
        folder=base,
        train=rows(300),
        valid=rows(100, seed=1),
        params=params,
        seed=3,
        threads=1,
        scratch=scratch,
        **more,  # type: ignore[arg-type]
    )


def test_it_learns_and_keeps_the_best_weights(base: Path) -> None:
    seen: list[float] = []
    training = start_training(_job(base, None, on_evaluation=lambda step, metrics: seen.append(metrics["accuracy"])))
    best = training.run()
    assert best["accuracy"] > 0.75
    assert best["accuracy"] == max(seen)
    probabilities = training.job.task.decode(training.predict(training.job.valid))
    again = training.job.task.metrics(training.job.valid.targets, probabilities)
    assert again["accuracy"] == best["accuracy"]


def test_rows_of_weight_0_are_not_learned(base: Path) -> None:
    train = rows(300)
    flipped = np.arange(300) % 2 == 1
    mixed = dataclasses.replace(train, targets=np.where(flipped, 1 - train.targets, train.targets))

    def accuracy(weights: np.ndarray) -> float:
        job = _job(base, None)
        job.train = dataclasses.replace(mixed, weights=weights.astype(np.float32))
        return start_training(job).run()["accuracy"]

    assert accuracy(~flipped) > 0.7
    assert accuracy(flipped) < 0.6


def test_in_bfloat16_it_learns_nearly_the_same_and_keeps_its_weights_in_float32(base: Path) -> None:
    def losses(precision: str) -> list[float]:
        found: list[float] = []
        job = _job(base, None, PARAMS.override({"precision": precision, "epochs": 1}))
        job.on_step = lambda step, steps, figures: found.append(figures["loss"])
        training = start_training(job)
        training.run()
        assert training.facts()["precision"] == precision
        assert {weight.dtype for weight in training.model.parameters()} == {torch.float32}
        return found

    exact, rounded = losses("fp32"), losses("bf16")
    assert exact != rounded
    assert rounded == pytest.approx(exact, abs=0.05)


def test_frozen_weights_stay(base: Path) -> None:
    training = start_training(_job(base, None, PARAMS.override({"frozen_layers": 1, "epochs": 1})))
    before = {n: w.clone() for n, w in training.model.state_dict().items()}
    training.run()
    changed = {n for n, w in training.model.state_dict().items() if not torch.equal(w, before[n])}
    assert not any("embeddings" in n or "layer.0." in n for n in changed)
    assert any("layer.1." in n for n in changed)
    with pytest.raises(DataError, match="has 2 layers"):
        start_training(_job(base, None, PARAMS.override({"frozen_layers": 3})))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(base: Path, tmp_path: Path) -> None:
    training = start_training(_job(base, tmp_path))
    folder = tmp_path / "last"
    made = checkpoint.snapshot(training.model, training.optimizer)
    for step in (1, 2, 3):
        checkpoint.save(folder, step, made, {"step": step})
    assert [p.name for p in sorted(folder.iterdir())] == ["step-00000002", "step-00000003"]
    with open(folder / "step-00000003" / "model.safetensors", "r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    found = checkpoint.latest(folder)
    assert found is not None
    assert found.name == "step-00000002"
    os.truncate(folder / "step-00000002" / "optimizer.safetensors", 100)
    assert checkpoint.latest(folder) is None


def test_the_optimizer_survives_without_pickle(base: Path, tmp_path: Path) -> None:
    training = start_training(_job(base, None, PARAMS.override({"epochs": 1})))
    training.run()
    path = checkpoint.save(tmp_path, 1, checkpoint.snapshot(training.model, training.optimizer), {"step": 1})
    assert {p.suffix for p in path.iterdir()} == {".json", ".safetensors"}
    other = start_training(_job(base, None))
    checkpoint.load(path, other.model, other.optimizer)
    one, two = training.optimizer.state_dict(), other.optimizer.state_dict()
    assert json.dumps(one["param_groups"]) == json.dumps(two["param_groups"])
    assert all(torch.equal(one["state"][n][k], two["state"][n][k]) for n in one["state"] for k in one["state"][n])


def test_a_loss_that_is_no_number_stops_the_run(base: Path) -> None:
    training = start_training(_job(base, None))
    with torch.no_grad():
        next(p for p in training.model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(DataError, match=r"loss is NaN at epoch 1, step 1 \(training rows .*\); lower finetune\.lr"):
        training.run()


def test_an_unknown_metric_names_those_there_are(base: Path) -> None:
    with pytest.raises(ParamsError, match=r"no metric f2; use one of .*macro_f1"):
        start_training(_job(base, None, PARAMS.override({"metric": "f2", "epochs": 1}))).run()


@pytest.mark.parametrize(
    ("patience", "scores", "best", "epochs"),
    [
        (1, [0.5, 0.4], 1, 2),
        (2, [0.4, 0.3, 0.5, 0.5, 0.2], 3, 5),
        (0, [0.5, 0.4, 0.3, 0.2, 0.1], 1, 5),
    ],
)
def test_early_stopping_counts_evaluations_without_a_better_score(
    base: Path, patience: int, scores: list[float], best: int, epochs: int
) -> None:
    """An equal score is not better, and a better one begins the count anew."""
    job = _job(base, None, PARAMS.override({"epochs": 5, "patience": patience, "batch_tokens": 50_000}))
    heads: dict[int, torch.Tensor] = {}
    job.on_evaluation = lambda step, metrics: heads.update({step: training.model.classifier.weight.detach().clone()})
    training = start_training(job)
    given = iter(scores)
    training.validate = lambda: {"accuracy": next(given)}  # type: ignore[method-assign]
    assert training.run() == {"accuracy": max(scores)}
    assert list(heads) == list(range(1, epochs + 1)), "an epoch is one step"
    assert training.progress.best_step == best
    assert [step for step, head in heads.items() if torch.equal(head, training.model.classifier.weight)] == [best]


def test_evaluations_every_few_steps_and_at_the_end(base: Path) -> None:
    seen: list[int] = []
    params = PARAMS.override({"epochs": 5, "evaluate_every": 2, "batch_tokens": 50_000, "patience": 0})
    start_training(_job(base, None, params, on_evaluation=lambda step, metrics: seen.append(step))).run()
    assert seen == [2, 4, 5]


def test_a_long_gradient_is_scaled_down_to_the_clip(base: Path) -> None:
    training = start_training(_job(base, None, PARAMS.override({"epochs": 1, "clip": 1e-3, "batch_tokens": 4096})))
    norms: list[float] = []

    def note(*_: object) -> None:
        """The fused AdamW scales gradients on its way through them and leaves them so."""
        gradients = [weight.grad for weight in training.model.parameters() if weight.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    training.optimizer.register_step_post_hook(note)
    training.run()
    assert norms == pytest.approx([1e-3] * training.steps, rel=0.01)


def test_workers_share_the_cores_evenly() -> None:
    assert [PARAMS.threads_of(cores, workers) for cores, workers in ((8, 1), (8, 3), (1, 2))] == [8, 2, 1]
    assert PARAMS.override({"threads": 5}).threads_of(8, 3) == 5


@pytest.mark.parametrize("task", ["text_classification", "language_model"])
def test_dropout_and_masks_differ_by_seed_epoch_and_step(base: Path, task: str) -> None:
    """A row alone in its step, three times an epoch: its loss tells what was drawn for that step."""
    masked = task == "language_model"
    metadata = ModelMetadata(
        task=task, labels=() if masked else LABELS, label_kind="none" if masked else "string", max_length=64
    )
    params = PARAMS.override({"lr": 1e-12, "batch_tokens": 40, "dropout": 0.0 if masked else 0.5, "metric": None})
    row = rows(20)
    longest = int(row.lengths.argmax())
    assert row.lengths[longest] > 20
    start: dict[str, torch.Tensor] = {}

    def losses(seed: int) -> list[float]:
        found: list[float] = []
        job = _job(base, None, params, on_step=lambda step, steps, figures: found.append(round(figures["loss"], 5)))
        job.task, job.seed = load_task(metadata), seed
        job.train = row.subset(np.full(3, longest))
        training = start_training(job)
        training.model.load_state_dict(start or training.model.state_dict())
        start.update({name: weight.clone() for name, weight in training.model.state_dict().items()})
        training.run()
        return found

    one, again, other = losses(3), losses(3), losses(4)
    assert one == again
    assert len({*one, *other}) == 12


def test_rows_that_do_not_fit_the_model_are_refused_at_once(base: Path) -> None:
    job = _job(base, None)
    ids = job.train.ids.copy()
    ids[5] = 40_000
    job.train = dataclasses.replace(job.train, ids=ids)
    with pytest.raises(DataError, match="have token 40000, but the model's vocabulary has 30522 tokens"):
        start_training(job)
    job = _job(base, None)
    job.train = dataclasses.replace(
        job.train, offsets=np.concatenate([job.train.offsets[:-30], job.train.offsets[-1:]])
    )
    with pytest.raises(DataError, match=r"tokens; the model takes 128; set -s preprocess\.max_length=128"):
        start_training(job)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_leaves_the_last_checkpoint_whole(base: Path, small_disk: Path) -> None:
    def fill(step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 6:
            with open(small_disk / "filler", "wb") as file, contextlib.suppress(OSError):
                while file.write(b"0" * 65_536):
                    file.flush()

    training = start_training(_job(base, small_disk / "scratch", on_step=fill))
    with pytest.raises(StoreError, match=r"no free space for a checkpoint in .*; free some"):
        training.run()
    kept = checkpoint.latest(small_disk / "scratch" / "last")
    assert kept is not None
    assert kept.name == "step-00000005"
    (small_disk / "filler").unlink()
    resumed = start_training(_job(base, small_disk / "scratch"))
    resumed.run()
    assert resumed.progress.step == resumed.steps
