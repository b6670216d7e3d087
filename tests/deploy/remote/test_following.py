"""Runs elsewhere as their user meets them: found again, left, stopped; the events that a mirror takes and leaves."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components import UserError
from raypath.components.core.artifacts import Endpoint
from raypath.deploy.execution.cache_key import settings_digest
from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus, load_runs
from raypath.deploy.kubernetes.rayjobs import RayJobClient, RayJobState
from raypath.deploy.launchers import RunRequest
from raypath.deploy.remote import follow
from raypath.deploy.remote.events import EventWriter, RunEnd, RunMirror, last_error_line
from raypath.deploy.remote.log_stream import Notice

GRAPH: Any = SimpleNamespace(workflow="w", params=SimpleNamespace(flat=lambda: {"seed": 1}), nodes=())


class Jobs:
    """A cluster on which each job has a status."""

    address = "http://cluster"

    def __init__(self, **status: str) -> None:
        self.known, self.stopped = status, []  # type: ignore[var-annotated]

    def status(self, job: str) -> tuple[str, str] | None:
        return (self.known[job], "") if job in self.known else None

    def stop(self, job: str) -> None:
        self.stopped.append(job)


def _record(home: Path, id: str, **changes: Any) -> Run:
    (home / "runs").mkdir(exist_ok=True, parents=True)
    fields = {"settings_digest": settings_digest(GRAPH), "cluster": "http://cluster", "job_id": id, **changes}
    run = Run(id=id, workflow="w", params={}, started=float(id[-1]), steps=[], **fields)
    run.save(home)
    return run


def test_the_unfinished_run_of_the_same_request(tmp_path: Path) -> None:
    request = RunRequest("w", GRAPH, tmp_path)
    assert follow._running(request, Jobs(r1="RUNNING")) is None  # type: ignore[arg-type]
    _record(tmp_path, "r1")
    _record(tmp_path, "r2")
    for other in ({"cluster": "http://other"}, {"settings_digest": "other"}, {"job_id": ""}):
        _record(tmp_path, "r9", **other)
        for status, found in (("RUNNING", "r2"), ("PENDING", "r2"), ("SUCCEEDED", ""), ("FAILED", ""), ("STOPPED", "")):
            run = follow._running(request, Jobs(r2=status, r9="RUNNING"))  # type: ignore[arg-type]
            assert (run.id if run else "") == found
    assert follow._running(request, Jobs(r1="RUNNING")) is None, "the last one is unknown"  # type: ignore[arg-type]
    fresh = RunRequest("w", GRAPH, tmp_path, {}, ("read",))
    with pytest.raises(UserError) as told:
        follow.attach_if_running(fresh, Jobs(r2="RUNNING"), 1.0)  # type: ignore[arg-type]
    assert str(told.value) == "r2 is already running; raypath runs --follow r2, or stop it first"
    assert not follow.attach_if_running(fresh, Jobs(), 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("again", [False, True])
def test_left_or_stopped(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, jobs = _record(tmp_path, "r1"), Jobs(r1="RUNNING")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if again:
            raise KeyboardInterrupt

    monkeypatch.setattr(follow.time, "sleep", sleep)
    if again:
        follow._detach_or_stop(run, jobs)  # type: ignore[arg-type]
    else:
        with pytest.raises(SystemExit) as ended:
            follow._detach_or_stop(run, jobs)  # type: ignore[arg-type]
        assert ended.value.code == 130
    last = "stopping" if again else "detached; `raypath runs --follow r1` attaches again"
    assert capsys.readouterr().err.splitlines() == [
        *("", "r1 continues on the cluster. Press Ctrl-C again within 5 s to stop it.", last),
    ]
    assert (jobs.stopped, slept) == ((["r1"] if again else []), [5.0])


def _line(kind: str, value: Any) -> str:
    return f"@raypath {json.dumps({kind: value})}"


def _run(steps: list[StepState]) -> Run:
    return Run(id="r1", workflow="w", settings_digest="d", params={}, started=1.0, steps=steps, cluster="http://c")


def test_a_mirror_takes_events_and_leaves_other_lines(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    known = StepState(name="read", status=StepStatus.DONE, seconds=3.0)
    mirror = RunMirror(tmp_path, _run([known, StepState(name="tune")]))
    assert [step.status for step in mirror.run.steps] == ["waiting", "waiting"]
    for line in ("hello", "@raypath {", '@raypath {"a": 1, "b": 2}', _line("run", {}), _line("step", {"status": "x"})):
        assert not mirror.apply(line), line
    for key in ("../a", "a/b", ""):
        assert not mirror.apply(_line("progress", {"key": key, "line": {}}))
    assert mirror.apply(_line("other", {})), "of a later version"
    assert mirror.apply(_line("step", {"name": "tune", "status": "running", "started": 5.0}))
    assert mirror.run.step("tune").status == "running"
    assert load_runs(tmp_path)[0].step("tune").status == "running"
    assert mirror.apply(_line("progress", {"key": "k1", "line": {"done": 1}}))
    assert json.loads((tmp_path / "attempts" / "k1.progress").read_text()) == {"done": 1}
    assert mirror.apply(_line("end", {"kind": "DataError", "what": "no column", "later": 1}))
    assert mirror.end == RunEnd(kind="DataError", what="no column")
    assert mirror.apply(_line("run", {"status": "failed", "ended": 9.0}))
    assert (mirror.run.status, mirror.run.ended, mirror.end is None) == ("failed", 9.0, False)
    assert mirror.apply(_line("run", {"status": "running", "ended": 0.0}))
    assert mirror.end is None, "another attempt"
    before = time.time()
    mirror.close(RunStatus.STOPPED)
    assert [step.status for step in mirror.run.steps] == ["waiting", "stopped"]
    assert (load_runs(tmp_path)[0].status, load_runs(tmp_path)[0].ended >= before) == ("stopped", True)
    untold = RunMirror(tmp_path, _run([known]))
    untold.close(RunStatus.DONE)
    assert untold.run.steps == [known], "nothing was heard"


def test_the_end_of_a_run() -> None:
    assert RunEnd().error() is None
    assert RunEnd(result={}, kind="DataError").error() is None
    error = RunEnd(kind="DataError", what="no column", fix="name it", step="read", trace="line 3").error()
    assert (type(error).__name__, str(error)) == ("DataError", "step read: no column; name it")
    assert error is not None
    assert error.__notes__ == ["line 3"]
    assert type(RunEnd(kind="Unheard", what="x").error()).__name__ == "StepFailed"
    endpoint = Endpoint(url="http://x", name="m", version=3)
    assert RunEnd(result=endpoint.model_dump(), kind="Endpoint").endpoint() == endpoint
    assert RunEnd(result={"rows": 3}, kind="Dataset").endpoint() is None
    lines = ["raypath: first", "x", f"raypath: {'y' * 600}", "raypathx: z"]
    assert (last_error_line(lines), last_error_line(["x"])) == ("y" * 500, "")


def test_a_driver_writes_what_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = StepState(name="read", status=StepStatus.RUNNING, key="k", key_inputs={"a": "b"})
    events, run = EventWriter(tmp_path), _run([step])

    def written() -> list[str]:
        lines = capsys.readouterr().out.splitlines()
        assert all(line.startswith("@raypath ") for line in lines)
        return [next(iter(json.loads(line.removeprefix("@raypath ")))) for line in lines]

    events.update(run)
    out = capsys.readouterr().out
    assert "key_inputs" not in out
    assert '"steps"' not in out
    events.update(run)
    assert written() == []
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "k.progress").write_text('{"done": 1}')
    events.update(run)
    assert written() == [], "once a second"
    events._progress_time["k"] -= 1.0
    events.update(run)
    assert written() == ["progress"]
    step.status = StepStatus.DONE
    events.update(run)
    events.end(RunEnd(result={}))
    assert written() == ["step", "end"]


def test_each_line_is_shown_or_kept(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    mirror, log, printed, drawn = RunMirror(tmp_path, _run([StepState(name="read")])), deque[str](), [], []

    def show(line: str, **options: bool) -> None:
        printed.append((line, options))

    view: Any = SimpleNamespace(console=SimpleNamespace(print=show), update=drawn.append)
    lines = Queue[str | None]()
    stream: Any = SimpleNamespace(lines=SimpleNamespace(get=lambda timeout: lines.get_nowait()))
    plain = {"markup": False, "highlight": False, "soft_wrap": True}
    assert follow._next(stream, mirror, log, view)
    assert (drawn, list(log)) == ([mirror.run], []), "time passes in the view"
    for line, kept, shown in (
        (Notice("reconnected"), [], [("reconnected", plain)]),
        ("hello", ["hello"], []),
        (_line("step", {"name": "read", "status": "done"}), [], []),
    ):
        for each in (log, printed, drawn):
            each.clear()
        lines.put(line)
        assert follow._next(stream, mirror, log, view)
        assert (list(log), printed, drawn) == (kept, shown, [mirror.run])
    lines.put(None)
    assert not follow._next(stream, mirror, log, view)
    assert mirror.run.step("read").status == "done"


def test_a_log_of_a_pod_in_lines() -> None:
    stream: Any = RayJobClient("kuberay://here/team").log_stream("j", 5.0)
    event = _line("step", {"name": "read"})
    for data in (b"one\r\ntw", b"o\n\xff\n", f"{event}\n{event}\none\n".encode()):
        stream._emit(data)
    assert list(stream.lines.queue) == ["one", "two", "\ufffd", event, "one"]
    stream._received.clear()
    stream._emit(f"one\ntwo\n{event}\none\none\n".encode())
    assert list(stream.lines.queue)[5:] == ["one"], "a connection begins with the first line again"


def test_states_of_a_job_are_reported_once() -> None:
    stream: Any = RayJobClient("kuberay://here/team").log_stream("j", 5.0)

    def state(deployment: str, job: str = "", attempt: str = "") -> RayJobState:
        return RayJobState(deployment, job, "", attempt, 9.0, "")

    for each in (
        state("Initializing"),
        state("Initializing"),
        state("Running", "RUNNING"),
        state("Running", "RUNNING"),
    ):
        stream._report_state(each)
    assert list(stream.lines.queue) == ["j: Initializing", "j: Running RUNNING"]
    stream._emit(b"one\n")
    stream._report_state(state("Running", "RUNNING"))
    stream._report_state(state("Complete", "SUCCEEDED"))
    assert list(stream.lines.queue)[2:] == ["one"], "the log says it"
    stream._report("no log yet")
    stream._report("no log yet")
    stream._report("")
    assert list(stream.lines.queue)[3:] == ["j: no log yet"]
