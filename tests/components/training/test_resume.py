"""A run that goes on: from what is consistent, as it was made, to the very end of one that was never cut short."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.checkpoints import checkpoint
from raypath.components.training.checkpoints.resume import drop_newer, find_resume_point
from raypath.components.training.job import Metrics, TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from tests.tiny import LABELS, rows

PARAMS = ResolvedParams(
    epochs=3,
    lr=1e-3,
    batch_tokens=512,
    checkpoint_seconds=0.0,
    patience=0,
    memory="full",
    metric="log_loss",
    dropout=0.1,
)
Weights = dict[str, torch.Tensor]


class Killed(BaseException):
    """The process is gone."""


def _training(base: Path, scratch: Path, threads: int = 1, **changes: Any) -> Training:
    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    params = PARAMS.override(changes)
    return start_training(
        TrainingJob(task, base, rows(100), rows(40, seed=1), params, seed=3, threads=threads, scratch=scratch)
    )


def _kill_at(step: int) -> Callable[..., None]:
    def kill(done: int, *_: Any) -> None:
        if done == step:
            raise Killed

    return kill


def _cut(training: Training, step: int) -> None:
    """Run a training until a step that is done and not yet kept."""
    training.job.on_step = _kill_at(step)
    with pytest.raises(Killed):
        training.run()


def _end(training: Training) -> tuple[Metrics, Weights]:
    metrics = training.run()
    # What is in the model is what the figures tell of.
    assert training.validate() == metrics
    return metrics, {name: weight.clone() for name, weight in training.model.state_dict().items()}


def _assert_same(one: tuple[Metrics, Weights], other: tuple[Metrics, Weights]) -> None:
    assert one[0] == other[0]
    assert all(torch.equal(weight, other[1][name]) for name, weight in one[1].items())


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we warned of; transformers has warnings of its own."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("raypath")]


def _damage(path: Path) -> None:
    with open(path / "model.safetensors", "r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff\xff")


@pytest.mark.parametrize("kept", [2, 1])
def test_best_weights_that_are_damaged_are_made_again(
    base: Path, tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = _end(_training(base, tmp_path / "whole"))
    cut = _training(base, tmp_path / "cut")
    epoch = len(cut.epochs[0])
    _cut(cut, kept * len(cut.epochs[0]) + 3)
    best = checkpoint.every(tmp_path / "cut" / "best")
    assert len(best) == kept, "every epoch was better than the one before"
    _damage(best[-1])
    resumed = _training(base, tmp_path / "cut")
    steps: list[int] = []
    resumed.job.on_step = lambda done, *_: steps.append(done)
    with caplog.at_level(logging.WARNING, "raypath"):
        found = _end(resumed)
    where = f"step {epoch}" if kept == 2 else "the start"
    assert f"is corrupt: training resumes from {where}" in caplog.text
    assert steps[0] == (epoch + 1 if kept == 2 else 1)
    _assert_same(found, whole)


@pytest.mark.parametrize("left", [True, False])
def test_best_weights_are_written_with_the_checkpoint_that_refers_to_them(
    base: Path, tmp_path: Path, left: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Looks between two checkpoints write nothing; a kill after the best weights and before the checkpoint is none."""
    whole = _end(_training(base, tmp_path / "whole"))
    cut = _training(base, tmp_path / "cut", checkpoint_seconds=1e6)
    epoch = len(cut.epochs[0])
    cut._save_due = lambda: cut.progress.step == epoch + 1  # type: ignore[method-assign]
    _cut(cut, epoch + 3)
    [best], [last] = (checkpoint.every(tmp_path / "cut" / name) for name in ("best", "last"))
    assert (best.name, last.name) == (checkpoint.name_of(epoch), checkpoint.name_of(epoch + 2))
    assert "execution" not in checkpoint.state_of(best)
    if not left:
        shutil.rmtree(last)
    resumed = _training(base, tmp_path / "cut")
    steps: list[int] = []
    resumed.job.on_step = lambda done, *_: steps.append(done)
    with caplog.at_level(logging.WARNING, "raypath"):
        _assert_same(_end(resumed), whole)
    assert steps[0] == (epoch + 3 if left else 1)
    assert not _said(caplog)


def _written(folder: Path, step: int, **state: Any) -> Path:
    return checkpoint.save(folder, step, checkpoint.Snapshot({}, {}, []), state)


def _truncate_state(path: Path) -> None:
    (path / "state.json").write_text('{"exec')


def _remove_manifest(path: Path) -> None:
    (path / checkpoint.MANIFEST).unlink()


@pytest.mark.parametrize("damage", [_truncate_state, _remove_manifest])
@pytest.mark.parametrize("where", ["last", "best"])
def test_a_corrupt_checkpoint_is_told_and_removed(
    tmp_path: Path, where: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    start = _written(tmp_path / "last", 1, execution={})
    newer = {"best": _written(tmp_path / "best", 2), "last": _written(tmp_path / "last", 2, execution={}, best_step=2)}
    damage(newer[where])
    found = find_resume_point(tmp_path)
    assert found is not None
    assert found.at == start
    drop_newer(tmp_path, found, logging.getLogger("raypath.finetune"))
    assert _said(caplog) == ["a checkpoint, or its best weights, is corrupt: training resumes from step 1"]
    assert not any(path.exists() for path in newer.values())
    assert start.exists()


def test_best_weights_without_their_checkpoint_are_removed_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start, alone = _written(tmp_path / "last", 1, execution={}), _written(tmp_path / "best", 2)
    drop_newer(tmp_path, find_resume_point(tmp_path), logging.getLogger("raypath.finetune"))
    assert not _said(caplog)
    assert (start.exists(), alone.exists()) == (True, False)


def test_best_weights_from_before_a_kill_are_the_result_where_no_later_ones_are_better(
    base: Path, tmp_path: Path
) -> None:
    changes = {"metric": "macro_f1", "epochs": 5, "lr": 3e-3}
    first = _training(base, tmp_path / "whole", **changes)
    whole = _end(first)
    assert first.progress.best_step + 3 < first.progress.step, "the last epoch was not the best"
    _cut(_training(base, tmp_path / "cut", **changes), first.progress.best_step + 3)
    resumed = _training(base, tmp_path / "cut", **changes)
    _assert_same(_end(resumed), whole)
    assert resumed.progress.best_step == first.progress.best_step


def test_it_goes_on_in_the_precision_and_with_the_threads_it_began_with(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In bfloat16, which any CPU computes: killed, and started again where fp32 and other threads would be taken."""
    whole = _end(_training(base, tmp_path / "whole", precision="bf16"))
    _cut(_training(base, tmp_path / "cut", precision="bf16"), 7)
    resumed = _training(base, tmp_path / "cut", threads=2, precision="auto")
    assert {name: resumed.facts()[name] for name in ("precision", "threads")} == {"precision": "bf16", "threads": 1}
    assert torch.get_num_threads() == 1
    with caplog.at_level(logging.WARNING, "raypath"):
        _assert_same(_end(resumed), whole)
    assert not _said(caplog)
    other = _end(_training(base, tmp_path / "other", precision="fp32"))
    assert any(not torch.equal(weight, whole[1][name]) for name, weight in other[1].items())


def test_another_number_of_workers_is_said_to_change_bits(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = _training(base, tmp_path)
    first.execution = first.execution.__class__(1, "bf16", "cpu", 2)
    _cut(first, 3)
    with caplog.at_level(logging.WARNING, "raypath"):
        resumed = _training(base, tmp_path, threads=2)
    assert _said(caplog) == [
        "a checkpoint of 2 worker(s) on cpu resumes with 1 on cpu: weights will differ from an uninterrupted run's"
    ]
    assert (resumed.execution.threads, resumed.execution.precision) == (2, "bf16")
    torch.set_num_threads(1)
    assert json.loads((tmp_path / "last" / "step-00000002" / "state.json").read_text())["execution"]["world_size"] == 2
