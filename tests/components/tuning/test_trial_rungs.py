"""Rungs of a trial: where they are, what is reported at each, and how a trial ends."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components.core.context import Tracking
from raypath.components.core.errors import DataError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.token_dataset import TokenDataset
from raypath.components.training.params import ResolvedParams
from raypath.components.tuning import trial

METADATA = ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8)


class Reports:
    """What a trial reports to Ray Tune, and the validation passes that it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rungs: int = 2, **changes: Any) -> None:
        self.found: list[dict[str, Any]] = []
        self.checkpoints: list[Any] = []
        self.points: list[Any] = []
        self.passes = 0
        monkeypatch.setattr(trial.ray_tune, "report", self._report)
        facts: dict[str, Any] = {"rungs": rungs, "metric": None, "clones": False, "deadline": 1e12} | changes
        run: Any = SimpleNamespace(metrics=lambda values, step: self.points.append((values, step)))
        config: Any = SimpleNamespace(**facts)
        self.reporter = trial.RungReporter(load_task(METADATA), config, Path("trial-01"), run, 0.0, "trial-00")
        self.training: Any = SimpleNamespace(steps=10, progress=SimpleNamespace(step=0), validate=self._validate)

    def _report(self, result: dict[str, Any], checkpoint: Any = None) -> None:
        self.found.append(result)
        self.checkpoints.append(checkpoint)

    def _validate(self) -> dict[str, float]:
        self.passes += 1
        return {"macro_f1": 0.5, "log_loss": 0.25, "f1/a": 1.0}

    def at(self, step: int) -> bool:
        """Take the training to a step."""
        self.training.progress.step = step
        due = self.reporter.checkpoint_due(self.training)
        self.reporter.before_checkpoint(self.training)
        return due


@pytest.mark.parametrize(
    ("steps", "rungs", "at"), [(10, 2, [5]), (10, 3, [4, 7]), (3, 4, [1, 2]), (10, 1, []), (1, 2, []), (2, 4, [1])]
)
def test_rungs_are_equal_shares_of_the_steps(
    steps: int, rungs: int, at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Reports(monkeypatch, rungs)
    made.training.steps = steps
    made.reporter.on_start(made.training)
    assert [step for step in range(steps + 1) if made.at(step)] == at
    assert [report["rung"] for report in made.found] == sorted(report["rung"] for report in made.found)
    assert len(made.found) == len(at)


def test_a_rung_is_reported_with_its_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Reports(monkeypatch)
    made.reporter.on_start(made.training)
    assert made.at(5)
    [found] = made.found
    assert found.pop("seconds") > 0
    metrics = {"macro_f1": 0.5, "log_loss": 0.25}
    assert found == {
        "rung": 1,
        "score": -0.25,
        "value": 0.25,
        "metric": "log_loss",
        "metrics": metrics,
        "clone": "trial-00",
    }
    assert made.points == [({"valid/macro_f1": 0.5, "valid/log_loss": 0.25}, 5)]
    assert made.checkpoints == [None]
    made.reporter.report(2, {"macro_f1": 0.75})
    assert made.found[1] | {"seconds": 0} == {
        "rung": 2,
        "score": 0.75,
        "value": 0.75,
        "metric": "macro_f1",
        "metrics": {"macro_f1": 0.75},
        "clone": "",
        "seconds": 0,
    }
    assert made.found[1]["seconds"] < 60, "since the rung before"
    made.at(5)
    assert made.passes == 1, "one validation pass a step"
    named = Reports(monkeypatch, metric="accuracy")
    named.reporter.report(1, {"accuracy": 0.5, "log_loss": 1.0})
    assert (named.found[0]["metric"], named.found[0]["score"]) == ("accuracy", 0.5)


def test_a_clone_reports_its_checkpoint_and_learns_at_its_own_rate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = Reports(monkeypatch, clones=True)
    monkeypatch.setattr(trial, "stage", lambda folder, name: tmp_path)
    model = torch.nn.Linear(2, 2)
    made.training.model, made.training.params = model, ResolvedParams(lr=0.5, head_factor=1.0, weight_decay=0.25)
    groups = [{"params": [weight], "lr": 1.0} for weight in (model.bias, model.weight)]
    made.training.optimizer = torch.optim.AdamW(groups, weight_decay=9.0)
    made.reporter.on_start(made.training)
    found = [(group["peak"], group["weight_decay"]) for group in made.training.optimizer.param_groups]
    assert found == [(0.5, 0.0), (0.5, 0.25)]
    assert made.at(5)
    assert made.found == [], "only with the checkpoint"
    made.reporter.after_checkpoint(made.training)
    assert [report["rung"] for report in made.found] == [1]
    assert Path(made.checkpoints[0].path) == tmp_path
    made.training.progress.step = 6
    made.reporter.after_checkpoint(made.training)
    assert len(made.found) == 1


def test_a_trial_ends_with_the_time_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Reports(monkeypatch, deadline=100.0)
    for now, over in ((100.0, False), (100.5, True)):
        monkeypatch.setattr(trial.time, "time", lambda now=now: now)
        if over:
            with pytest.raises(trial.DeadlineExceeded):
                made.reporter.before_step(made.training)
        else:
            made.reporter.before_step(made.training)


@pytest.mark.parametrize("error", [None, trial.DeadlineExceeded(), DataError("no rows", fix="add some")])
def test_how_a_trial_ends(error: Exception | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, seen = Reports(monkeypatch), []

    def run(name: str, values: Any, config: Any, run: Any) -> None:
        seen.append((name, values))
        if error is not None:
            raise error

    monkeypatch.setattr(trial, "_run", run)
    monkeypatch.setattr(trial.ray_tune, "get_context", lambda: SimpleNamespace(get_trial_name=lambda: "trial-03"))
    tracking = Tracking(experiment="exp", parent="outer", spool=str(tmp_path))
    config: Any = SimpleNamespace(tracking=tracking, step="tune")
    trial.trial({"trial": {"values": {"lr": 0.5}}}, config)
    assert seen == [("trial-03", {"lr": 0.5})]
    failed = {"failed": ["DataError", "no rows", "add some"]} if isinstance(error, DataError) else {}
    assert made.found == ([] if error is None else [{"score": float("-inf"), "over": True, **failed}])
    [path] = tmp_path.glob("*.jsonl")
    first, *others = map(json.loads, path.read_text().splitlines())
    assert (first["id"], first["parent"]) == ("outer/tune/trial-03", "outer/tune")
    assert (first["tags"], first["params"]) == ({"raypath.kind": "trial"}, {"lr": "0.5"})
    assert [event.get("values", event.get("status")) for event in others] == [
        *([{"raypath.failed": "no rows"}] if failed else []),
        "FINISHED",
    ]


def test_rows_of_a_trial_are_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = TokenDataset(np.arange(20, dtype=np.int32), np.arange(21), np.arange(20))
    monkeypatch.setattr(trial, "load_token_dataset", lambda folder, labels: rows)

    def draw(count: int, seed: int = 0) -> list[int]:
        found: list[int] = trial._rows.__wrapped__("folder", 2, count, seed).targets.tolist()
        return found

    assert draw(0) == draw(20) == draw(30) == list(range(20))
    assert draw(5) == sorted(draw(5)) == draw(5) != draw(5, seed=1)
    assert len(set(draw(19))) == 19


@pytest.mark.parametrize(("keep", "summary", "reused"), [(True, "", False), (True, "small", False), (False, "", True)])
def test_weights_of_a_trial_are_kept_or_taken(
    keep: bool, summary: str, reused: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept: list[Any] = []
    jobs: list[Any] = []
    reported: list[Any] = []
    rows = TokenDataset(np.arange(4, dtype=np.int32), np.arange(5), np.array([0, 1, 0, 1]))
    asked: list[Any] = []

    def load(*given: Any) -> Any:
        asked.append(given)
        return rows

    plan = SimpleNamespace(summary=summary)
    training = SimpleNamespace(run=lambda: {"f1": 0.5}, prepared=SimpleNamespace(memory_plan=plan))

    def start(job: Any) -> Any:
        jobs.append(job)
        return training

    monkeypatch.setattr(trial, "_rows", load)
    monkeypatch.setattr(trial, "start_training", start)
    monkeypatch.setattr(trial.trial_weights, "load", lambda folder, _: {"f1": 0.25} if reused else None)
    monkeypatch.setattr(trial.trial_weights, "keep", lambda folder, *given: kept.append((folder, given)))
    monkeypatch.setattr(trial.RungReporter, "report", lambda _, *given: reported.append(given))
    config = trial.TrialConfig(
        folder=Path("base"),
        metadata=METADATA,
        finetune=ResolvedParams(epochs=3),
        train="train",
        valid="valid",
        train_rows=5,
        valid_rows=6,
        rungs=4,
        metric=None,
        seed=7,
        threads=2,
        scratch=tmp_path,
        tracking=Tracking(),
        step="tune",
        selector={},
        keep=keep,
        clones=False,
        deadline=1e12,
        concurrent_trials=3,
    )
    points: list[Any] = []
    run: Any = SimpleNamespace(metrics=lambda values, step: points.append((values, step)))
    trial._run("trial-02", {"lr": 0.5}, config, run)
    folder = tmp_path / "trial-02"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert asked == [("train", 2, 5, 7), ("valid", 2, 6, 7)]
    [job] = jobs
    assert (job.folder, job.scratch, job.seed, job.threads, job.concurrent_trials) == (Path("base"), folder, 7, 2, 3)
    assert (job.params.lr, job.params.epochs) == (0.5, 3)
    assert isinstance(job.callback, trial.RungReporter)
    assert job.on_evaluation == job.callback.on_evaluation
    job.on_step(2, 9, {"loss": 0.5})
    assert points == [({"train/loss": 0.5}, 2)]
    metrics = {"f1": 0.25 if reused else 0.5}
    assert reported == [(4, metrics)]
    assert kept == ([(folder / "kept", (training, metrics))] if keep and not summary else [])
