"""The runner: reuse and its reasons, retries of infrastructure failures only, parallel steps, the run history."""

import errno
import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from raypath.components import Artifact, Context, DataError, Dataset, Params, Splits, Unavailable, component, workflow
from raypath.components.core.errors import StepFailed, StoreError
from raypath.deploy.execution import runner as runner_module
from raypath.deploy.execution.run_history import load_runs
from raypath.deploy.execution.runner import Runner
from raypath.deploy.store.store import Store
from tests.deploy.execution.in_process import Here, Nobody

HERE: dict[str, Any] = {"calls": [], "fail": {}, "alive": True, "warn": ""}


class Make(Params):
    """How much."""

    rows: int = 3
    """Rows."""


class Flow(Params):
    """The test's workflow."""

    left: Make = Make()
    right: Make = Make(rows=4)
    seed: int = 0
    """Seed."""


def _alive(ctx: Context, artifact: Dataset) -> bool:
    if HERE["alive"] == "away":
        HERE["alive"] = True
        raise Unavailable("away")
    return bool(HERE["alive"])


def _call(name: str) -> None:
    HERE["calls"].append(name)
    faults = HERE["fail"].get(name, [])
    if faults:
        raise faults.pop(0)


@component(version=1)
def make(ctx: Context, params: Make) -> Dataset:
    _call("make")
    (ctx.out / "rows").write_text(str(params.rows))
    return Dataset(rows=params.rows)


@component(version=1)
def both(ctx: Context, left: Dataset, right: Dataset) -> Splits:
    _call("both")
    for name in ("a", "b", "c"):
        (ctx.out / name).mkdir()
        (ctx.out / name / "x").write_text(f"{name} {left.rows} {right.rows}")
    return Splits(train=Dataset(uri="a", rows=left.rows), valid=Dataset(uri="b", rows=1), test=Dataset(uri="c", rows=1))


@component(version=1, alive=_alive)
def publish(ctx: Context, data: Dataset) -> Dataset:
    _call("publish")
    if HERE["warn"]:
        ctx.log.info("looked at %d rows", data.rows)
        ctx.log.debug("not for the user")
        ctx.log.warning(HERE["warn"])
    return Dataset(rows=data.rows * 10)


@workflow
def flow(p: Flow) -> Dataset:
    parts = both(make(p.left), make(p.right))
    return publish(parts.train)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    HERE.update(calls=[], fail={}, alive=True, warn="")
    monkeypatch.setattr(runner_module, "POLL", 0.0)


def _execute(home: Path, fresh: Collection[str] = (), **changes: Any) -> tuple[Artifact, Runner, Here]:
    platform = Here()
    params = Flow().override({k.replace("__", "."): v for k, v in changes.items()})
    runner = Runner(flow.trace(params), Store(home).open(), platform, Nobody())
    return runner.execute(fresh), runner, platform


def _reasons(runner: Runner) -> dict[str, str]:
    return {s.name: f"{s.status}: {s.reason}" for s in runner.run.steps}


def test_everything_runs_once_and_then_nothing_does(tmp_path: Path) -> None:
    result, runner, platform = _execute(tmp_path)
    assert isinstance(result, Dataset)
    assert result.rows == 30
    assert sorted(HERE["calls"]) == ["both", "make", "make", "publish"]
    assert platform.started == 4, "before each step, which costs nothing once it is up"
    assert platform.tracked == [runner.run.id] * 4
    HERE["calls"].clear()
    again, runner, platform = _execute(tmp_path)
    assert again == result
    assert HERE["calls"] == []
    assert (platform.started, platform.tracked) == (0, [])
    assert set(_reasons(runner).values()) == {"reused: nothing changed"}


def test_a_changed_setting_runs_its_step_and_what_follows_and_says_so(tmp_path: Path) -> None:
    _execute(tmp_path)
    HERE["calls"].clear()
    _, runner, _ = _execute(tmp_path, left__rows=5)
    assert HERE["calls"] == ["make", "both", "publish"]
    reasons = _reasons(runner)
    assert reasons["make"] == "done: make.rows 3 -> 5"
    assert reasons["make-2"] == "reused: nothing changed"
    assert reasons["both"] == "done: input left changed"


def test_a_step_whose_output_is_the_same_stops_the_change_there(tmp_path: Path) -> None:
    _execute(tmp_path)
    HERE["calls"].clear()
    _, runner, _ = _execute(tmp_path, fresh=["make"])
    assert HERE["calls"] == ["make"]
    assert _reasons(runner)["make"] == "done: asked for with --fresh"
    assert _reasons(runner)["both"] == "reused: nothing changed"


def test_what_lives_outside_is_asked_for(tmp_path: Path) -> None:
    _execute(tmp_path)
    HERE["calls"].clear()
    HERE["alive"] = False
    _, runner, _ = _execute(tmp_path)
    assert HERE["calls"] == ["publish"]
    assert _reasons(runner)["publish"] == "done: what it made no longer exists"
    HERE["alive"] = "away"
    _, _, platform = _execute(tmp_path)
    assert platform.started == 1
    assert HERE["calls"] == ["publish"]


def test_only_faults_of_the_ground_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]
    monkeypatch.setattr(runner_module.time, "time", lambda: now[0])
    monkeypatch.setattr(runner_module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 1))
    HERE["fail"] = {"publish": [Unavailable("MLflow does not answer"), Unavailable("MLflow does not answer")]}
    result, _, platform = _execute(tmp_path)
    assert isinstance(result, Dataset)
    assert HERE["calls"].count("publish") == 3
    assert platform.healed == 2
    HERE.update(calls=[], fail={"make": [DataError("bad", fix="mend it")]})
    with pytest.raises(DataError, match="step make: bad; mend it"):
        _execute(tmp_path, left__rows=9)
    assert HERE["calls"] == ["make"]


def test_a_fault_that_stays_ends_the_run_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr(runner_module.time, "time", lambda: now[0])
    monkeypatch.setattr(runner_module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 1))
    HERE["fail"] = {"publish": [Unavailable("away") for _ in range(9)]}
    with pytest.raises(Unavailable, match="step publish: away"):
        _execute(tmp_path)
    assert HERE["calls"].count("publish") == 1 + runner_module.RETRIES
    HERE.update(calls=[], fail={})
    _execute(tmp_path)
    assert HERE["calls"] == ["publish"]
    assert len({run.id for run in load_runs(tmp_path)}) == 1, "the same command resumes the same run"


def test_an_unforeseen_error_keeps_its_kind_and_trace(tmp_path: Path) -> None:
    HERE["fail"] = {"make": [ZeroDivisionError("x / 0")]}
    with pytest.raises(StepFailed, match="step make: ZeroDivisionError: x / 0") as caught:
        _execute(tmp_path)
    assert "in make" in "".join(caught.value.__notes__)
    run = load_runs(tmp_path)[-1]
    assert run.status == "failed"
    assert run.step("make").status == "failed"
    assert len(list((tmp_path / "records").iterdir())) <= 1, "the failed step has no record"


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: No space left on device")]
)
def test_a_disk_that_fills_up_is_said_and_what_was_done_stays_done(tmp_path: Path, fault: Exception) -> None:
    HERE["fail"] = {"both": [fault]}
    with pytest.raises(
        StoreError, match=r"step both: the disk of .* is full; free disk space, then run the same command again"
    ):
        _execute(tmp_path)
    HERE["calls"].clear()
    _execute(tmp_path)
    assert HERE["calls"] == ["both", "publish"]


def test_what_a_step_warns_of_and_notes_reaches_the_user(tmp_path: Path) -> None:
    HERE["warn"] = "2 rows look odd"
    level = logging.getLogger("raypath").level
    _, runner, _ = _execute(tmp_path)
    for run in (runner.run, load_runs(tmp_path)[-1]):
        step = run.step("publish")
        assert step.warnings == ["2 rows look odd"]
        assert step.notes == ["looked at 3 rows"]
    assert logging.getLogger("raypath").level == level


def test_too_little_room_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "MIN_FREE", 1 << 60)
    with pytest.raises(StoreError, match=r"step make: the disk of .* MiB free; wanted at least"):
        _execute(tmp_path)
    assert HERE["calls"] == []


@component(version=1)
def double(ctx: Context, data: Dataset, by: Dataset | None = None) -> Dataset:
    _call("double")
    return Dataset(rows=data.rows * (by.rows if by is not None else 2))


@workflow
def doubled(p: Flow) -> Dataset:
    alone = double(make(p.left))
    return double(alone, by=make(p.right))


def test_an_artifact_that_is_left_out_is_no_part_of_the_key(tmp_path: Path) -> None:
    runner = Runner(doubled.trace(), Store(tmp_path).open(), Here(), Nobody())
    result = runner.execute()
    assert isinstance(result, Dataset)
    assert result.rows == 3 * 2 * 4
    assert set(runner.run.step("double").key_inputs) == {"component", "version", "seed", "source", "input data"}
    assert "input by" in runner.run.step("double-2").key_inputs
    HERE["calls"].clear()
    assert Runner(doubled.trace(), Store(tmp_path).open(), Here(), Nobody()).execute() == result
    assert HERE["calls"] == []
