"""Events of a remote run, and messages about its connection."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from raypath.components import DataError, PlatformError, Unavailable
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


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["epoch 1", "Killed", ""], "Killed"),
        (
            [
                "epoch 1",
                "Memory on the node (IP: 10.0.0.7, ID: 3f) was 22.9GB used / 23.5GB limit (0.97)",
                "21085 mlflow",
            ],
            "a node ran out of memory (22.9 of 23.5 GB in use)",
        ),
        ([], "no more is known"),
    ],
)
def test_the_end_of_a_driver_that_reported_none(lines: list[str], reason: str) -> None:
    stream = LogStream("job", 5.0)
    stream.status, stream.message = "FAILED", "no more is known"
    found = stream.end_of_lost_driver(lines)
    assert (found.kind, found.what) == ("Unavailable", f"the driver on the cluster died: {reason}")
    assert found.trace == "\n".join([*lines, "no more is known"])


class _Job(LogStream):
    """The log of a job whose states are given; the last one repeats."""

    states: list[Exception | tuple[str, str] | None]

    def poll(self) -> tuple[str, str] | None:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return state

    def read(self) -> None:
        self.lines.put("a line")
        time.sleep(0.001)

    def drain(self) -> None:
        self.lines.put("the rest")


def _ended(*states: Exception | tuple[str, str] | None, timeout: float = 5.0) -> _Job:
    """The stream of a job with these states, after its end."""
    stream = _Job("job", timeout)
    stream.states = list(states)
    stream.start()
    stream.join(5)
    assert not stream.is_alive()
    return stream


def test_a_stream_ends_with_its_job_whose_log_it_reads_to_the_end() -> None:
    away = Unavailable("refused", fix="")
    stream = _ended(("PENDING", ""), away, ("RUNNING", ""), ("SUCCEEDED", "well"))
    notices = ["connection lost, reconnecting: refused", "a line", "reconnected"]
    assert list(stream.lines.queue) == ["a line", *notices, "a line", "the rest", None]
    assert (stream.status, stream.message, stream.error) == ("SUCCEEDED", "well", None)


@pytest.mark.parametrize(
    ("state", "kind", "says"),
    [(None, PlatformError, "the cluster has no job job"), (Unavailable("refused", fix=""), Unavailable, "refused")],
)
def test_a_stream_ends_with_an_error_that_a_retry_does_not_cure(state: Any, kind: type, says: str) -> None:
    stream = _ended(state, timeout=-1.0)
    assert isinstance(stream.error, kind)
    assert str(stream.error).startswith(says)
    assert list(stream.lines.queue) == [None]


def test_a_closed_stream_ends_though_its_job_runs() -> None:
    stream = _Job("job", 5.0)
    stream.states = [("RUNNING", "")]
    stream.start()
    assert stream.lines.get(timeout=5) == "a line"
    stream.close()
    stream.join(5)
    assert not stream.is_alive()
    assert list(stream.lines.queue)[-1] is None, "the reader of its lines is told"


def test_pauses_grow_until_something_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(log_stream.time, "sleep", slept.append)
    stream = LogStream("job", 5.0)
    for heard in (False, False, False, False, True, False):
        stream.back_off(heard)
    assert slept == [2.0, 4.0, 8.0, 8.0, 1.0, 2.0]
