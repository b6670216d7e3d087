"""What a search passes to Ray Tune: resources, samplers, schedulers and stops; real searches: test_tune.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.tuning import search
from raypath.components.tuning.journal import TrialJournal
from raypath.components.tuning.params import TuneParams
from raypath.components.tuning.search import Proposals, SearchPlan


class Calls:
    """Ray Tune's Tuner, which records what it is given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.fits = folder, 0
        self.trainable: Any = None
        self.given: dict[str, Any] = {}
        self.journal = TrialJournal(folder / "search.jsonl", 2)
        self.removed: list[Path] = []
        monkeypatch.setattr(search.ray_tune, "Tuner", self._tuner)
        monkeypatch.setattr(search, "remove_recorded", self.removed.append)
        monkeypatch.setattr(search.ray_tune, "with_parameters", lambda fn, **more: (fn, more))
        monkeypatch.setattr(search.ray_tune, "with_resources", lambda fn, place: (fn, place))

    def _tuner(self, trainable: Any, **given: Any) -> Any:
        self.trainable, self.given = trainable, given
        return SimpleNamespace(fit=self._fit)

    def _fit(self) -> None:
        self.fits += 1

    def run(self, selector: dict[str, str] | None = None, deadline: float = 1e12, **settings: Any) -> None:
        """Search with 4 CPU cores, one GPU, and two trials at a time."""
        params = TuneParams(**settings)
        plan = SearchPlan(params, params.searched(), 3, [{"lr": 1e-4}], 7, 2, 4, 1)
        self.config: Any = SimpleNamespace(
            scratch=self.folder, deadline=deadline, selector=selector or {}, rungs=2, clones=False
        )
        search.search(plan, self.config, self.journal, lambda: None)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(tmp_path, monkeypatch)


def test_trials_are_proposed_one_by_one(calls: Calls) -> None:
    (calls.folder / "search").mkdir()
    (calls.folder / "search" / "state").touch()
    calls.run()
    assert calls.fits == 1
    assert not (calls.folder / "search").exists(), "Ray Tune's own state is not used"
    (function, more), place = calls.trainable
    assert (function, more) == (search.trial, {"trial_config": calls.config})
    assert place.bundles == [{"CPU": 1.0, "GPU": 0.5}]
    assert place.record == calls.folder / "placement-groups"
    assert calls.removed == [place.record]
    assert calls.given["param_space"] == {}
    tuning, running = calls.given["tune_config"], calls.given["run_config"]
    assert (tuning.num_samples, tuning.max_concurrent_trials, tuning.reuse_actors) == (3, 2, True)
    assert isinstance(tuning.search_alg, Proposals)
    assert type(tuning.scheduler).__name__ == "AsyncHyperBandScheduler"
    assert tuning.trial_name_creator is tuning.trial_dirname_creator is search._name
    assert (running.name, running.storage_path, running.verbose) == ("search", str(calls.folder), 0)
    assert running.failure_config.max_failures == 1
    assert running.checkpoint_config.num_to_keep == 3
    assert isinstance(running.stop, search._Done)
    assert running.stop.rungs == 2
    [callback] = running.callbacks
    assert isinstance(callback, search.JournalCallback)
    assert callback.journal is calls.journal


def test_a_population_is_created_at_once(calls: Calls) -> None:
    calls.run(scheduler="pbt", selector={"ray.io/node-id": "n"})
    _, place = calls.trainable
    assert place.bundles == [{"CPU": 2.0, "GPU": 0.5}]
    assert place._kwargs == {"bundle_label_selector": [{"ray.io/node-id": "n"}]}
    tuning = calls.given["tune_config"]
    assert (tuning.num_samples, tuning.max_concurrent_trials) == (1, None)
    assert type(tuning.search_alg).__name__ == "BasicVariantGenerator"
    assert type(tuning.scheduler).__name__ == "PopulationBasedTraining"
    trials = calls.given["param_space"]["trial"]["grid_search"]
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    assert trials[0]["values"] == {"lr": 1e-4}
    assert len(calls.journal.entries) == 3


def test_a_search_that_is_complete_or_late_runs_nothing(calls: Calls) -> None:
    calls.run(deadline=0.0)
    for number in range(3):
        calls.journal.propose(number, {"lr": 1e-4})
        if number < 2:
            calls.journal.end(number)
    calls.run()
    assert calls.given["tune_config"].num_samples == 1, "two of three have ended"
    calls.journal.end(2)
    calls.run()
    assert calls.fits == 1


def test_scores_of_before_count_for_the_scheduler(calls: Calls) -> None:
    for number, score in enumerate((0.5, 0.7)):
        calls.journal.propose(number, {"lr": 1e-4})
        facts = {"value": score, "metric": "f1", "metrics": {}, "seconds": 1.0, "clone": "", "values": {"lr": 1e-4}}
        calls.journal.reach(number, rung=1, score=score, **facts)
    calls.run()
    [bracket] = calls.given["tune_config"].scheduler._brackets
    assert bracket._rungs[-1] == (1, {"past-0": 0.5, "past-1": 0.7})
