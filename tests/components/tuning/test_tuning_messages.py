"""Errors of a search in full, and what its space, its journal and its schedulers contain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.core.errors import DataError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.training.params import ResolvedParams
from raypath.components.tuning import search
from raypath.components.tuning.journal import TrialJournal
from raypath.components.tuning.params import TuneParams
from raypath.components.tuning.population import _adopted, catch_up
from raypath.components.tuning.search_space import FIXED, MOVABLE, Dimension, Span, dimensions, grid, own_values
from tests.raised import raised

METADATA = ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8)
CASES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: TuneParams(space={"epochs": (1, 2)}),
        "ParamsError: tune.space.epochs is searched, but trials have epochs of their own; set -s tune.epochs=0",
    ),
    (
        lambda: TuneParams(scheduler="pbt", space={"warmup": (0.1, 0.2)}),
        "ParamsError: warmup cannot change in the middle of a training; pbt takes clip, dropout, "
        "head_factor, lr, weight_decay",
    ),
    (
        lambda: TuneParams(scheduler="pbt", space={"batch_tokens": Span(low=1, high=9)}),
        "ParamsError: batch_tokens cannot change in the middle of a training; pbt takes clip, dropout, "
        "head_factor, lr, weight_decay",
    ),
    (
        lambda: TuneParams().override({"weight_decay": "0,0.1"}),
        "ParamsError: setting weight_decay got '0,0.1': wanted two numbers above 0, the lower one "
        "first; see `raypath show WORKFLOW`",
    ),
    (
        lambda: TuneParams().override({"space.lr": '{"low": 2, "high": 1}'}),
        "ParamsError: setting space.lr.range: wanted the lower number first; see the allowed values "
        "with `raypath show`",
    ),
    (
        lambda: TuneParams(space={"base": ("a", "b")}),
        "ParamsError: tune.space.base cannot be searched; set finetune's own value; search settings "
        "such as lr or dropout",
    ),
    (
        lambda: TuneParams(space={"epoch": (1, 2)}, epochs=0),
        "ParamsError: tune.space: unknown setting epoch; did you mean epochs?",
    ),
    (
        lambda: TuneParams(space={"dropout": (0.1, 1.5)}),
        "ParamsError: tune.space: setting dropout got 1.5: wanted less than 1; see the allowed values "
        "with `raypath show`",
    ),
]


@pytest.mark.parametrize(("call", "text"), CASES)
def test_an_error_of_a_search(call: Callable[[], Any], text: str) -> None:
    assert raised(call) == text


def test_what_may_be_searched_and_moved() -> None:
    where = {"base", "task", "method", "workers", "max_workers", "shard", "threads", "micro_tokens", "precision"}
    how = {"memory", "gradient_checkpointing", "checkpoint_seconds", "profile", "metric"}
    assert where | how == FIXED
    assert {"lr", "head_factor", "weight_decay", "clip", "dropout"} == MOVABLE
    moving = TuneParams(scheduler="pbt", space=dict.fromkeys(MOVABLE - {"lr"}, (0.1, 0.2)))
    assert {found.name for found in moving.searched()} == MOVABLE
    assert [found.name for found in TuneParams(epochs=0, space={"epochs": (1, 2)}).searched()] == ["lr", "epochs"]
    assert TuneParams(lr=(1e-4, 1e-4)).searched() == []
    with pytest.raises(ValueError, match="wanted the lower number first"):
        Span(low=2, high=1)
    assert Span(low=1, high=1).low == 1


def test_dimensions_and_their_values() -> None:
    choices, whole = Dimension("a", choices=(None, 1)), Dimension("b", low=2, high=32, integer=True)
    real = Dimension("c", low=0.01, high=1.0)
    assert [each.contains(value) for each in (choices, whole) for value in (None, 1, 2, 33)] == [
        *(True, True, False, False),
        *(False, False, True, False),
    ]
    assert [real.contains(value) for value in (0.01, 1.0, 0.009, 1.01, "x")] == [True, True, False, False, False]
    assert choices.points(1) == [None, 1]
    assert (whole.points(1), whole.points(3)) == ([8], [2, 8, 32])
    assert (real.points(1), real.points(3)) == ([pytest.approx(0.1)], [0.01, pytest.approx(0.1), 1.0])
    assert (choices.clip(5), whole.clip(1), whole.clip(99), real.clip(0.5)) == (5, 2, 32, 0.5)
    found = choices.distribution(), whole.distribution(), real.distribution()
    assert [type(each).__name__ for each in found] == [
        "CategoricalDistribution",
        "IntDistribution",
        "FloatDistribution",
    ]
    assert found[0].choices == (None, 1)
    assert [(each.low, each.high, each.log) for each in found[1:]] == [(2, 32, True), (0.01, 1.0, True)]
    assert choices.mutation() == [None, 1]
    moved = real.mutation()
    drawn = [moved.sample() for _ in range(200)]
    assert 0.01 <= min(drawn) < 0.05 < 0.5 < max(drawn) <= 1.0
    params = ResolvedParams(lr=1e-4, warmup=0.25)
    lr = Dimension("lr", low=1e-5, high=1e-3)
    assert own_values(params, [lr, Dimension("warmup", choices=(0.25, 0.5))]) == {"lr": 1e-4, "warmup": 0.25}
    assert own_values(params, [lr, Dimension("warmup", choices=(0.5,))]) is None
    [same] = dimensions({}, {"dropout": (0.1, 0.1, None)})
    assert same.choices == (0.1, None)
    every, size = grid([Dimension("a", choices=(1, 2)), Dimension("b", choices=(3, 4))], 3, 4, 0)
    assert (every, size) == ([{"a": a, "b": b} for a in (1, 2) for b in (3, 4)], 4)


def test_the_row_of_a_trial(tmp_path: Path) -> None:
    journal = TrialJournal(tmp_path / "search.jsonl", 2)
    journal.propose(0, {"lr": 0.5})
    journal.propose(1, {"lr": 0.25})
    facts = {"value": 0.5, "metric": "f1", "metrics": {"f1": 0.5}, "clone": "", "values": {"lr": 0.5}}
    journal.reach(0, rung=1, score=0.5, seconds=1.234, **facts)
    journal.end(1, DataError("no rows", fix="add some"), seconds=0.006)
    plain = {"trial": 0, "values": {"lr": 0.5}, "status": "", "rung": 1, "score": 0.5, "value": 0.5}
    empty = {"rung": 0, "score": None, "value": None, "metrics": {}, "clones": []}
    assert journal.table() == [
        {**plain, "metrics": {"f1": 0.5}, "seconds": 1.23, "clones": []},
        {"trial": 1, "values": {"lr": 0.25}, "status": "failed", **empty, "seconds": 0.01, "error": "no rows"},
    ]
    journal.adopt(0, {"lr": 0.1}, "trial-01")
    assert (journal.entries[0].values, journal.entries[0].scores) == ({"lr": 0.1}, {})
    events = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [event["event"] for event in events] == ["proposed", "proposed", "rung", "ended", "adopted"]
    assert events[3]["error"] == ["DataError", "no rows", "add some"]
    assert events[4] | {"at": 0} == {
        "event": "adopted",
        "trial": 0,
        "values": {"lr": 0.1},
        "clone": "trial-01",
        "at": 0,
    }


def test_a_clone_that_crashed_before_its_rung_is_recorded_once(tmp_path: Path) -> None:
    journal = TrialJournal(tmp_path / "search.jsonl", 2)
    for number in range(3):
        journal.propose(number, {"lr": 0.5})
    folder = tmp_path / ".trial-01"
    folder.mkdir()
    (folder / "adopted.json").write_text('{"clone": "trial-00", "values": {"lr": 0.25}}')
    (tmp_path / "trial-02").mkdir()
    assert _adopted(tmp_path / "trial-00") is None
    for _ in range(2):
        catch_up(journal, tmp_path)
    assert [entry.clones for entry in journal.entries.values()] == [[], ["trial-00"], []]
    assert journal.entries[1].values == {"lr": 0.25}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search.jsonl", "trial-01", "trial-02"]


def test_the_scheduler_of_a_search(tmp_path: Path) -> None:
    def made(**settings: Any) -> Any:
        params = TuneParams(**settings)
        plan: Any = SimpleNamespace(params=params, searched=params.searched())
        config: Any = SimpleNamespace(rungs=3)
        return search._scheduler(plan, config, TrialJournal(tmp_path / "none.jsonl", 3))

    assert made(scheduler="none") is None
    asha = made(reduction=3)
    assert type(asha).__name__ == "AsyncHyperBandScheduler"
    assert (asha._time_attr, asha._metric, asha._mode) == ("rung", "score", "max")
    assert (asha._max_t, asha._reduction_factor, asha._brackets[0]._rungs[-1][0]) == (3, 3, 1)
    population = made(scheduler="pbt", space={"dropout": (0.1, 0.2)})
    assert (population._time_attr, population._metric, population._mode) == ("rung", "score", "max")
    assert population._perturbation_interval == 1
    assert list(population._hyperparam_mutations["trial"]["values"]) == ["lr", "dropout"]
    lr = Dimension("lr", low=0.1, high=0.5)
    assert search._clip([lr], {"trial": {"values": {"lr": 9.0}}}) == {"trial": {"values": {"lr": 0.5}}}


def test_a_trial_ends_at_its_last_rung() -> None:
    done = search._Done(2)
    results: list[dict[str, Any]] = [{}, {"rung": 1}, {"rung": 2}, {"rung": 3}, {"over": True}]
    assert [done("x", result) for result in results] == [False, False, True, True, True]
    assert done.stop_all() is False
    assert search._name(SimpleNamespace(config={"trial": {"number": 7}})) == "trial-07"
    assert search._number("trainable-trial-07") == 7


def test_a_trial_whose_process_died_names_the_last_line(tmp_path: Path) -> None:
    for text, said in ((None, "a trial's process died"), ("first\nlast\n", "last")):
        journal = TrialJournal(tmp_path / f"{said}.jsonl", 1)
        journal.propose(0, {})
        callback = search.JournalCallback(journal, lambda: None)

        class Dead:
            def get_error(self, text: str | None = text) -> str | None:
                return text

            def __str__(self) -> str:
                return "x-0"

        callback.on_trial_error(0, [], Dead())
        [error] = journal.errors()
        text = f"StepFailed: {said}; run again with --debug for the traceback"
        assert f"{type(error).__name__}: {error}" == text
