"""Events of a remote run, and messages about its connection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypath.components import DataError
from raypath.deploy.execution.run_history import RunStatus, StepStatus, begin
from raypath.deploy.remote import log_stream
from raypath.deploy.remote.events import EVENT_PREFIX, RunEnd, RunMirror
from raypath.deploy.remote.log_stream import LogStream


def test_a_key_from_elsewhere_is_no_path_here(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    mirror = RunMirror(tmp_path, begin(tmp_path, "flow", "p", {}, ["read"]))
    for key, taken in (("../../x", False), ("abc1", True)):
        line = EVENT_PREFIX + json.dumps({"progress": {"key": key, "line": {}}})
        assert mirror.apply(line) is taken
    assert not (tmp_path / "x").exists()


def test_of_a_driver_that_said_nothing_the_steps_known_before_stay(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    run = begin(tmp_path, "flow", "p", {}, ["read", "train"])
    run.step("read").status, run.step("train").status = StepStatus.DONE, StepStatus.RUNNING
    mirror = RunMirror(tmp_path, run)
    mirror.close(RunStatus.STOPPED)
    assert [step.status for step in mirror.run.steps] == ["done", "stopped"]


def test_an_error_comes_here_as_it_was_raised_there() -> None:
    there = DataError("the loss is nan", fix="lower finetune.lr")
    there.step = "finetune"
    sent = RunEnd.from_error(there, "Traceback of the driver").model_dump_json()
    with pytest.raises(DataError) as caught:
        RunEnd.model_validate_json(sent).raise_error()
    assert str(caught.value) == str(there)
    assert caught.value.__notes__ == ["Traceback of the driver"]
    RunEnd().raise_error()  # stopped
    RunEnd(kind="Dataset", result={}).raise_error()


def test_connected_again_is_said_once_all_that_was_lost_is_back() -> None:
    stream = LogStream("job", 5.0)
    stream.connection_lost("status", "refused")
    stream.connection_lost("log", "cut")
    for what in ("log", "status", "status"):
        stream.connected(what)
    assert list(stream.lines.queue) == ["connection lost, reconnecting: refused", "reconnected"]


def test_pauses_grow_until_something_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(log_stream.time, "sleep", slept.append)
    stream = LogStream("job", 5.0)
    for heard in (False, False, False, False, True, False):
        stream.back_off(heard)
    assert slept == [2.0, 4.0, 8.0, 8.0, 1.0, 2.0]
