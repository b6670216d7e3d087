"""What a search proposes: near what scored well, the settings as they are first, and the same after a kill."""

import logging
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.tuning.journal import TrialJournal
from raypath.components.tuning.params import TuneParams
from raypath.components.tuning.search import STARTUP, JournalCallback, Proposals, SearchPlan, _name, _quiet

BEST = 1e-3


def _proposals(path: Path, deadline: float = 1e12, **changes: Any) -> Proposals:
    params = TuneParams().override({"lr": (1e-6, 1e-1), "trials": 40, **changes})
    plan = SearchPlan(params, params.searched(), 40, [{"lr": 1e-5}], seed=0, parallelism=1, workers=2, gpus=0)
    return Proposals(plan, TrialJournal(path, 1), deadline)


def _distance(rate: Any) -> float:
    """How far a learning rate is from the best, in powers of ten."""
    return abs(float(np.log10(rate / BEST)))


def _try(proposals: Proposals, count: int) -> list[float]:
    """The next trials as Ray Tune asks for them and ends them; the nearer to the best, the higher the score."""
    rates = []
    for _ in range(count):
        name = f"trial-{len(proposals.journal.entries)}"
        found = proposals.suggest(name)
        assert isinstance(found, dict)
        number, values = found["trial"]["number"], found["trial"]["values"]
        facts = {"value": 0.0, "metric": "", "metrics": {}, "seconds": 1.0, "clone": "", "values": values}
        proposals.journal.reach(number, rung=1, score=-_distance(values["lr"]), **facts)
        proposals.journal.end(number)
        proposals.on_trial_complete(name, {"rung": 1})
        rates.append(values["lr"])
    return rates


def test_proposals_come_to_what_scores_best(tmp_path: Path) -> None:
    rates = _try(_proposals(tmp_path / "search.jsonl"), 30)
    assert rates[0] == 1e-5, "the settings as they are come first"
    assert np.mean([_distance(rate) for rate in rates[-15:]]) < 1.0
    drawn = _try(_proposals(tmp_path / "random.jsonl", search="random"), 30)
    assert np.mean([_distance(rate) for rate in drawn[-15:]]) > 1.2, "as far as chance has it"


def test_the_estimator_has_a_say_after_the_startup(tmp_path: Path) -> None:
    tpe, drawn = (_try(_proposals(tmp_path / how, search=how), STARTUP + 3) for how in ("tpe", "random"))
    assert tpe[:STARTUP] == drawn[:STARTUP]
    assert set(tpe[STARTUP:]).isdisjoint(drawn)


@pytest.mark.parametrize("cut", [2, STARTUP + 4])
def test_a_search_that_was_killed_proposes_as_one_that_was_not(tmp_path: Path, cut: int) -> None:
    whole = _try(_proposals(tmp_path / "whole"), 12)
    first = _proposals(tmp_path / "cut")
    _try(first, cut)
    waiting = first.suggest("killed")
    again = _proposals(tmp_path / "cut")
    assert again.next() == waiting["trial"], "the trial that was cut short comes first"
    facts = {
        "value": 0.0,
        "metric": "",
        "metrics": {},
        "seconds": 1.0,
        "clone": "",
        "values": waiting["trial"]["values"],
    }
    again.journal.reach(cut, rung=1, score=-_distance(whole[cut]), **facts)
    again.journal.end(cut)
    again.numbers["killed"] = cut
    again.on_trial_complete("killed", {"rung": 1})
    assert _try(again, 11 - cut) == whole[cut + 1 :]


def test_a_search_is_over_with_its_time_or_by_a_setting_that_is_wrong_for_all(tmp_path: Path) -> None:
    assert _proposals(tmp_path / "late", deadline=time.time() - 1).suggest("trial") == "FINISHED"
    for error, over in ((DataError("rows", fix=""), False), (ParamsError("metric", fix=""), True)):
        proposals = _proposals(tmp_path / type(error).__name__)
        proposals.suggest("trial")
        proposals.journal.end(0, error)
        proposals.on_trial_complete("trial", {"failed": True})
        assert proposals.over() == over


def test_every_event_of_a_trial_is_recorded_and_reported(tmp_path: Path) -> None:
    from ray.tune.experiment import Trial

    journal, events = TrialJournal(tmp_path / "search.jsonl", 1), []
    callback = JournalCallback(journal, lambda: events.append([entry.status for entry in journal.entries.values()]))
    for number in range(3):
        journal.propose(number, {"lr": 1e-3})
    trials = [Trial("t", stub=True, config={"trial": {"number": n}}, trial_name_creator=_name) for n in range(3)]
    good, bad, dead = trials
    for trial in trials:
        callback.on_trial_start(0, [], trial)
    facts = {"value": 0.5, "metric": "f1", "metrics": {}, "seconds": 1.0, "clone": ""}
    callback.on_trial_result(1, [], good, {"rung": 1, "score": 0.5, **facts, "config": {"trial": {"values": {}}}})
    callback.on_trial_result(1, [], good, {"over": True})
    assert events == [["", "", ""]]
    callback.on_trial_complete(2, [], good)
    bad.update_last_result({"failed": ("DataError", "no rows", "add some")})
    callback.on_trial_complete(2, [], bad)
    callback.on_trial_error(2, [], dead)
    assert events[1:] == [["finished", "", ""], ["finished", "failed", ""], ["finished", "failed", "failed"]]
    first, second = journal.errors()
    assert str(first) == str(DataError("no rows", fix="add some"))
    assert str(second).startswith("a trial's process died")


def test_a_search_seeds_the_generators_and_gives_the_loggers_back() -> None:
    loggers = [logging.getLogger(name) for name in ("ray.tune", "optuna", "ray.train")]
    before, drawn = [logger.level for logger in loggers], []

    def fail() -> None:
        drawn.append((random.random(), np.random.random()))
        assert {logger.level for logger in loggers} == {logging.ERROR}
        raise DataError("rows", fix="")

    for seed in (7, 7, 2**40):
        with pytest.raises(DataError), _quiet(seed):
            fail()
        assert [logger.level for logger in loggers] == before
    assert drawn[0] == drawn[1] != drawn[2]
