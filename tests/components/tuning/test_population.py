"""A clone has the weights and the optimizer of the trial it came from, and its own settings."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components.core.context import Tracking
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.tracking.run import Track
from raypath.components.training.checkpoints import checkpoint
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training
from raypath.components.training.params import ResolvedParams
from raypath.components.tuning import population as cloning
from raypath.components.tuning import trial as trials
from raypath.components.tuning.journal import TrialJournal
from raypath.components.tuning.trial import RungReporter, TrialConfig, prepare
from tests.tiny import LABELS, rows, tiny_bert

METADATA = ModelMetadata(task="text_classification", labels=LABELS, max_length=64)
PARAMS = ResolvedParams(epochs=2, lr=1e-3, batch_tokens=256, metric="accuracy")


def _trial(base: Path, name: str, folder: Path, params: ResolvedParams) -> tuple[Training, RungReporter]:
    (folder / name).mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {"train": "", "valid": "", "train_rows": 0, "valid_rows": 0, "step": "tune"}
    trial_config = TrialConfig(
        folder=base,
        metadata=METADATA,
        finetune=params,
        rungs=4,
        metric=None,
        seed=3,
        threads=1,
        scratch=folder,
        tracking=Tracking(),
        keep=False,
        clones=True,
        deadline=1e18,
        selector={},
        **common,
    )
    job = TrainingJob(load_task(METADATA), base, rows(200), rows(60, seed=1), params, 3, 1, folder / name)
    return prepare(job, trial_config, {"lr": params.lr}, Track(Tracking(), ""), 0.0)


def test_a_clone_goes_on_from_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune import Checkpoint

    reported: list[dict[str, Any]] = []
    given: list[Checkpoint | None] = [None]
    handed = tmp_path / "handed"

    def report(metrics: dict[str, Any], checkpoint: Checkpoint | None = None) -> None:
        reported.append(metrics)
        if checkpoint is not None and metrics["rung"] == 2:
            shutil.copytree(checkpoint.path, handed)

    monkeypatch.setattr(trials.ray_tune, "report", report)
    monkeypatch.setattr(trials.ray_tune, "get_checkpoint", lambda: given[0])
    base = tiny_bert(tmp_path / "base")
    donor, _ = _trial(base, "trial-00", tmp_path, PARAMS)
    donor.run()
    assert [line["rung"] for line in reported] == [1, 2, 3]
    assert {path.suffix for path in handed.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    assert {path.name for path in handed.iterdir()} == {"last", "best", "trial.json"}

    given[0] = Checkpoint.from_directory(handed)
    _, same = _trial(base, "trial-00", tmp_path, PARAMS)
    assert same.clone == "", "its own checkpoint makes no clone"
    clone, reporter = _trial(base, "trial-01", tmp_path, PARAMS.override({"lr": 5e-4, "weight_decay": 0.1}))
    assert reporter.clone == "trial-00"
    assert not list(tmp_path.glob(".trial-*")), "nothing is left aside"
    clone._restore()
    reporter.on_start(clone)
    twin, _ = _trial(base, "trial-02", tmp_path, PARAMS)
    newest = checkpoint.latest(handed / "last")
    assert newest is not None
    checkpoint.load(newest, twin.model, twin.optimizer)
    assert clone.progress.step == clone.steps // 2 + clone.steps % 2
    for mine, theirs in zip(clone.model.state_dict().values(), twin.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    ours, other = clone.optimizer.state_dict(), twin.optimizer.state_dict()
    assert all(torch.equal(ours["state"][n][k], other["state"][n][k]) for n in ours["state"] for k in ours["state"][n])
    assert ours["state"], "there is something to compare"
    assert {group["peak"] for group in ours["param_groups"]} == {5e-4, 5e-3}
    assert all(
        (group["weight_decay"] == 0.1) == (weight.ndim > 1)
        for group in clone.optimizer.param_groups
        for weight in group["params"]
    )
    before = len(reported)
    clone.run()
    assert [line["rung"] for line in reported[before:]] == [3]
    assert reported[before]["clone"] == "trial-00"


class Killed(BaseException):
    """The process is gone."""


def _hand_over(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Trial 0 has a checkpoint, which Ray Tune gives to who asks next; trial 1 has its own."""
    from ray.tune import Checkpoint

    for name in ("trial-00", "trial-01"):
        (folder / name).mkdir()
        (folder / name / "weights").write_text(name)
    shutil.copytree(folder / "trial-00", folder / "handed")
    (folder / "handed" / cloning.OWNER).write_text('"trial-00"')
    patch.setattr(cloning.ray_tune, "get_checkpoint", lambda: Checkpoint.from_directory(folder / "handed"))


def _ledger(folder: Path) -> TrialJournal:
    """As the search finds it when it is run again."""
    journal = TrialJournal(folder / "search.jsonl", 4)
    if not journal.entries:
        facts = {"score": 0.5, "value": 0.5, "metric": "accuracy", "metrics": {}, "seconds": 1.0, "clone": ""}
        for trial, rate in enumerate((1e-3, 1e-7)):
            journal.propose(trial, {"lr": rate})
            journal.reach(trial, rung=1, values={"lr": rate}, **facts)
    return journal


def test_a_clone_that_was_killed_before_it_could_tell_keeps_its_new_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hand_over(tmp_path, monkeypatch)
    journal = _ledger(tmp_path)
    assert cloning.adopt(tmp_path / "trial-01", "trial-01", {"lr": 8e-4}) == "trial-00"
    for _ in range(2):  # run again, and killed again
        journal = _ledger(tmp_path)
        cloning.catch_up(journal, tmp_path)
        entry = journal.entries[1]
        assert (entry.values, entry.clones, entry.score) == ({"lr": 8e-4}, ["trial-00"], None)
        assert journal.entries[0].values == {"lr": 1e-3}
    assert journal.best() is journal.entries[0], "its score was by other weights and values"


@pytest.mark.parametrize("moment", [0, 1])
def test_a_kill_while_a_clone_takes_over_loses_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Killed before the first rename it is what it was, before the second it is the clone."""
    _hand_over(tmp_path, monkeypatch)
    journal, rename, renamed = _ledger(tmp_path), Path.rename, []

    def dies(self: Path, target: Path) -> Path:
        if len(renamed) == moment:
            raise Killed
        renamed.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(Killed):
            cloning.adopt(tmp_path / "trial-01", "trial-01", {"lr": 8e-4})
    cloning.catch_up(journal, tmp_path)
    assert (tmp_path / "trial-01" / "weights").read_text() == f"trial-0{1 - moment}"
    assert journal.entries[1].values == {"lr": 8e-4 if moment else 1e-7}
