"""torch.compile is used where it was measured to pay, and never tried where it could not be repaid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.tasks.text_classification import TextClassification
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime import compile as compiling
from tests.tiny import LABELS, rows, tiny_bert

# torch's compiler imports a part of torch that warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Chain(torch.nn.Module):
    """Many small operations on a large tensor: what a compiler joins into one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = torch.sin(x) * 0.5 + x * x * 0.1
        return x


def test_a_short_run_is_not_worth_the_trial() -> None:
    assert not compiling.worth_trying(0.8, 100)
    assert compiling.worth_trying(0.8, 10_000)


@pytest.mark.timing
def test_the_faster_of_the_two_is_taken() -> None:
    def forward(model: Any, batch: torch.Tensor) -> None:
        with torch.no_grad():
            model(batch)

    batches = [torch.rand(size) for size in (400_000, 500_000, 450_000)]
    assert compiling.compile_if_faster(Chain(), batches, forward) is not None
    assert compiling.compile_if_faster(torch.nn.Identity(), batches, forward) is None


def test_a_model_that_cannot_be_compiled_stays_as_it_is() -> None:
    def forward(model: Any, batch: torch.Tensor) -> None:
        if not isinstance(model, torch.nn.Identity):
            raise RuntimeError("no compiler")

    assert compiling.compile_if_faster(torch.nn.Identity(), [torch.zeros(1)], forward) is None


@pytest.mark.slow
def test_a_compiled_run_learns_the_same_and_goes_on_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_bert(tmp_path / "base")
    metadata = ModelMetadata(task="text_classification", labels=LABELS, max_length=64)

    def losses(scratch: Path) -> dict[int, float]:
        params = ResolvedParams(epochs=1, lr=1e-3, batch_tokens=256, patience=0, memory="full")
        found: dict[int, float] = {}
        job = TrainingJob(
            load_task(metadata), base, rows(160), rows(40, seed=1), params, seed=3, threads=1, scratch=scratch
        )
        job.on_step = lambda step, steps, figures: found.__setitem__(step, figures["loss"])
        start_training(job).run()
        return found

    plain = losses(tmp_path / "plain")
    assert not (tmp_path / "plain" / compiling.DECISION).exists()
    monkeypatch.setattr(compiling, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(compiling, "MIN_SPEEDUP", 0.0)
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")  # traced as ever, without the minute of the C++ compiler
    compiled = losses(tmp_path / "compiled")
    decision = json.loads((tmp_path / "compiled" / compiling.DECISION).read_text())
    assert decision == {"compiled": True, "step": compiling.WARMUP_STEPS}
    assert compiled.keys() == plain.keys()
    for step, loss in plain.items():
        assert compiled[step] == pytest.approx(loss, abs=1e-4)


class Killed(BaseException):
    """The process is gone."""


def _training(tmp_path: Path, scratch: str, task: Any = None, **changes: Any) -> Training:
    base = tmp_path / "base"
    if not base.exists():
        tiny_bert(base)
    plain = {"epochs": 1, "lr": 1e-3, "batch_tokens": 256, "checkpoint_seconds": 0.0, "memory": "full"}
    params = ResolvedParams().override(plain | changes)
    task = task or load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    return start_training(
        TrainingJob(task, base, rows(160), rows(40, seed=1), params, seed=3, threads=1, scratch=tmp_path / scratch)
    )


def _compiled_steps(training: Training, kill_at: int = 0) -> tuple[list[int], list[int]]:
    """(plain steps, compiled ones) of a run that is killed after a step where that is not 0."""
    found: tuple[list[int], list[int]] = ([], [])

    def note(step: int, *_: Any) -> None:
        found[training.wrapped is not training.model].append(step)
        if step == kill_at:
            raise Killed

    training.job.on_step = note
    if kill_at:
        with pytest.raises(Killed):
            training.run()
    else:
        training.run()
    return found


def test_a_run_that_goes_on_is_compiled_from_the_same_step_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(compiling, "MIN_SPEEDUP", 0.0)
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    after = compiling.WARMUP_STEPS
    assert _compiled_steps(_training(tmp_path, "cut"), after - 3) == ([*range(1, after - 2)], [])
    plain, fast = _compiled_steps(_training(tmp_path, "cut"), after + 2)
    assert (plain, fast) == ([*range(after - 3, after + 1)], [after + 1, after + 2])
    # Behind the step at which it was decided, and before it: the decision holds from that step on.
    assert _compiled_steps(_training(tmp_path, "cut"), after + 4) == ([], [*range(after + 2, after + 5)])
    (tmp_path / "anew").mkdir()
    shutil.copy(tmp_path / "cut" / compiling.DECISION, tmp_path / "anew")
    plain, fast = _compiled_steps(_training(tmp_path, "anew"), after + 2)
    assert (plain, fast) == ([*range(1, after + 1)], [after + 1, after + 2])


class Fragile(TextClassification):
    """Its loss fails once, in the second micro-batch of the batch that is tried first by the compiled model."""

    calls = 0
    fails = 0

    def loss(self, outputs: Any, batch: Any) -> Any:
        self.calls += 1
        if self.calls == self.fails:
            raise RuntimeError("the compiler gives up")
        return super().loss(outputs, batch)


def test_a_compiler_that_gives_up_halfway_leaves_no_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = ModelMetadata(task="text_classification", labels=LABELS, max_length=64)

    def losses(scratch: str, fails: bool) -> list[float]:
        task, found = Fragile(metadata), []
        training = _training(tmp_path, scratch, task, micro_tokens=128)
        parts = [
            len(training._batches(0, n, step)) for n, step in enumerate(training.epochs[0][: compiling.WARMUP_STEPS])
        ]
        assert parts[0] > 1
        task.fails = 3 * sum(parts) + 2 if fails else 0
        training.job.on_step = lambda step, steps, figures: found.append(figures["loss"])
        training.run()
        decided = compiling.load_decision(tmp_path / scratch)
        assert decided == (compiling.Decision(False, compiling.WARMUP_STEPS) if fails else None)
        return found

    plain = losses("plain", False)
    monkeypatch.setattr(compiling, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    assert losses("failed", True) == plain
