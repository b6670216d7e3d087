"""Run history: which run a command resumes, and the key inputs of the last success."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from raypath.deploy.execution.run_history import Run, RunStatus, StepStatus, begin, last_key_inputs, load_runs


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def _ended(home: Path, run: Run, **changes: object) -> Run:
    changed = run.model_copy(update=changes)
    changed.save(home)
    return changed


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path


def test_a_run_that_did_not_end_well_is_gone_on_with_and_a_done_one_is_not(home: Path, gone: int) -> None:
    first = begin(home, "flow", "p", {}, ["a"])
    assert (first.pid, first.status, first.step("a").status) == (os.getpid(), "running", "waiting")
    for changes in ({"status": RunStatus.FAILED}, {"status": RunStatus.STOPPED}, {"pid": gone}):
        first.step("a").status = StepStatus.DONE
        _ended(home, first, ended=1.0, **changes)
        again = begin(home, "flow", "p", {}, ["a", "b"])
        assert (again.id, again.pid, again.status, again.ended) == (first.id, os.getpid(), "running", 0.0)
        assert [step.status for step in again.steps] == ["waiting", "waiting"]
    _ended(home, first, status=RunStatus.DONE)
    assert begin(home, "flow", "p", {}, ["a"]).id != first.id


def test_a_run_that_is_alive_elsewhere_or_of_another_line_is_let_be(home: Path) -> None:
    first = begin(home, "flow", "p", {}, ["a"])
    _ended(home, first, pid=os.getppid())
    assert begin(home, "flow", "p", {}, ["a"]).id != first.id, "its process lives"
    _ended(home, first, status=RunStatus.FAILED, started=9e9)
    for workflow, plan, cluster in (("other", "p", ""), ("flow", "q", ""), ("flow", "p", "http://x")):
        assert begin(home, workflow, plan, {}, ["a"], cluster=cluster).id != first.id
    assert begin(home, "flow", "p", {}, ["a"], name=first.id).id == first.id
    assert begin(home, "flow", "p", {}, ["a"], name="mine").id == "mine"


def test_a_run_is_cut_off_when_its_process_on_this_machine_is_gone(home: Path, gone: int) -> None:
    run = begin(home, "flow", "p", {}, ["a"])
    assert not run.interrupted()
    assert run.model_copy(update={"pid": gone}).interrupted()
    assert not run.model_copy(update={"pid": gone, "status": RunStatus.FAILED}).interrupted()
    far = begin(home, "flow", "p", {}, ["a"], cluster="http://x")
    assert far.pid == 0
    assert not far.interrupted()


def test_runs_come_oldest_first_without_damaged_ones(home: Path) -> None:
    for n, started in enumerate((3.0, 1.0, 2.0)):
        _ended(home, begin(home, "flow", str(n), {}, []), started=started)
    (home / "runs" / "x.json").write_text("{")
    assert [run.started for run in load_runs(home)] == [1.0, 2.0, 3.0]
    assert load_runs(home / "none") == []


def test_key_inputs_are_those_of_each_step_s_latest_success(home: Path) -> None:
    for n, status in enumerate(("done", "reused", "failed", "running")):
        run = begin(home, "flow", str(n), {}, ["a", "b"])
        run.step("a").status, run.step("a").key_inputs = StepStatus(status), {"n": str(n)}
        _ended(home, run, started=float(n))
    other = begin(home, "other", "p", {}, ["a"])
    other.step("a").status, other.step("a").key_inputs = StepStatus.DONE, {"n": "other"}
    other.save(home)
    assert last_key_inputs(home, "flow") == {"a": {"n": "1"}}
