"""A run on KubeRay as its user sees it: followed, cut off, left, found again, stopped; with
tests/deploy/kubernetes/kubectl.py."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from raypath.components import PlatformError, RaypathError
from raypath.deploy.execution.run_history import Run, RunStatus, StepStatus, begin, load_runs
from raypath.deploy.kubernetes import rayjobs as kube_jobs
from raypath.deploy.kubernetes.rayjobs import RayJobClient, RayJobState
from raypath.deploy.remote import log_stream as tail
from raypath.deploy.remote.events import EventWriter, RunEnd
from raypath.deploy.remote.follow import watch
from tests.deploy.kubernetes import kubectl
from tests.k8s.manifests import IMAGE
from tests.waiting import until

ROOT = Path(__file__).parents[3]
LINE = ["run", "text_classification", "--on", "kuberay", "-s", f"kuberay.image={IMAGE}"]
QUICK = """
import sys
from raypath.deploy.cli.main import main
from raypath.deploy.kubernetes import rayjobs
rayjobs.POLL_INTERVAL = 0.2
sys.exit(main())
"""
"""The command, with short pauses between looks at a job."""


class Cluster:
    """A fake cluster, and the driver of its job."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        kubectl.put(folder)
        (folder / "attempt").write_text("1")
        (self.home / "runs").mkdir(parents=True)

    def states(self, *lines: str) -> None:
        """Append states of the job."""
        with (self.folder / "states").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def told(self, run: Run, *changes: dict[str, str], end: RunEnd | None = None, attempt: int = 1) -> None:
        """Let the driver of this run write lines for each change of its steps, {NAME: STATUS}."""
        events, said = EventWriter(self.folder), io.StringIO()
        with contextlib.redirect_stdout(said):
            events.update(run)
            for change in changes:
                for name, status in change.items():
                    run.step(name).status = StepStatus(status)
                events.update(run)
            if end:
                run.status, run.ended = RunStatus.DONE if end.result is not None else RunStatus.FAILED, time.time()
                events.update(run)
                events.end(end)
        with (self.folder / f"log-{attempt}").open("a") as log:
            log.write(said.getvalue())

    def over(self, last: str = "Complete SUCCEEDED") -> None:
        """The driver's pod ends, and the job."""
        (self.folder / "over").touch()
        self.states(last)

    def watch(self, run: Run, console: Console | None = None) -> RunEnd:
        """Follow its job as the launcher does."""
        return watch(
            self.home, run, RayJobClient("kuberay://here/raypath").log_stream("job-x", 5.0), console or Console()
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Begin `raypath ARGS`."""
        command, pipe = [sys.executable, "-W", "error", "-c", QUICK, *args], subprocess.PIPE
        env = {**os.environ, "PYTHONPATH": str(ROOT), "RAYPATH_HOME": str(self.home)}
        return subprocess.Popen(command, cwd=self.folder, env=env, stdout=pipe, stderr=pipe, text=True)

    def submitted(self) -> Run:
        """The run of the job that was created, as its driver has it."""
        manifest = until(lambda: (self.folder / "manifest").exists() and (self.folder / "manifest").read_text())
        words = shlex.split(json.loads(manifest)["spec"]["entrypoint"])
        run = until(lambda: next((r for r in load_runs(self.home) if r.job_id), None))
        assert words[-2:] == ["--run", run.id]
        return Run.model_validate(run.model_dump() | {"where": "", "job": ""})

    def last(self) -> Run:
        return load_runs(self.home)[-1]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _ended(process: subprocess.Popen[str], status: int) -> str:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, out + err
    assert "Traceback" not in err
    return out + err


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Cluster(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between tries."""
    monkeypatch.setattr(tail, "BACKOFF", (0.0,))
    monkeypatch.setattr(kube_jobs, "POLL_INTERVAL", 0.2)


def _run(cluster: Cluster) -> Run:
    return begin(cluster.home, "flow", "p", {}, ["read", "train"], cluster="kuberay://here/raypath")


def _theirs(run: Run) -> Run:
    return Run.model_validate(run.model_dump() | {"where": "", "job": ""})


DONE = RunEnd(result={"rows": 3}, kind="Dataset", seconds=4.0)
BAD = RunEnd(kind="DataError", what="no column x", fix="name it", step="read")
STEPS = ({"read": "running"}, {"read": "done", "train": "running"}, {"train": "done"})


@pytest.mark.usefixtures("quick")
def test_steps_are_drawn_as_they_come_and_before_them_what_kuberay_says(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(cluster)
    cluster.states("Initializing", "FAIL", "Running RUNNING", "Running RUNNING Job is currently running.")
    cluster.told(_theirs(run), *STEPS, end=DONE)
    cluster.over()
    assert cluster.watch(run) == DONE
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "job-x: Initializing",
        "connection lost, reconnecting: kubectl: error: The connection to the server was lost",
    ]
    assert [line.split()[:2] for line in said if line.startswith(("read", "train"))] == [
        ["read", "running"], ["read", "done"], ["train", "running"], ["train", "done"]
    ]  # fmt: skip
    assert "Complete" not in "".join(said)
    kept = cluster.last()
    assert (kept.status, [step.status for step in kept.steps]) == ("done", ["done", "done"])
    assert (cluster.home / "logs" / f"{run.id}.log").read_text() == "submitted by pod 1"


@pytest.mark.usefixtures("quick")
def test_in_a_terminal_the_view_is_the_live_one(cluster: Cluster) -> None:
    run, screen = _run(cluster), io.StringIO()
    cluster.states("Initializing", "Running RUNNING")
    cluster.told(_theirs(run), *STEPS, end=DONE)
    cluster.over()
    cluster.watch(run, Console(file=screen, force_terminal=True, width=80))
    drawn = screen.getvalue()
    assert "job-x: Initializing" in drawn
    assert "✓" in drawn
    assert run.id in drawn


@pytest.mark.parametrize("cuts", [["0", "3", "5"], ["4+", "6"], ["7+"]])
@pytest.mark.usefixtures("quick")
def test_a_log_that_breaks_off_is_taken_up_again_each_line_once(
    cluster: Cluster, cuts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the connection, in the middle of a line; or with its pod, whose place another takes (+)."""
    run = _run(cluster)
    cluster.states("Running RUNNING")
    cluster.told(_theirs(run), *STEPS, end=DONE)
    (cluster.folder / "cuts").write_text("\n".join(cuts))
    (cluster.folder / "over").touch()
    took: list[str] = []
    _until_closed(cluster, took)
    assert [line for line in took if line.startswith("@raypath")] == (cluster.folder / "log-1").read_text().splitlines()
    broken = sum(not cut.endswith("+") for cut in cuts)
    assert took.count("connection lost, reconnecting: error: unexpected EOF") == broken
    assert took.count("reconnected") == broken


def _until_closed(cluster: Cluster, took: list[str]) -> None:
    """All lines that a tail gives, of a job that ends once its log was read to its end."""
    reader = RayJobClient("kuberay://here/raypath").log_stream("job-x", 5.0)
    reader.start()
    while (line := reader.lines.get(timeout=30)) is not None:
        took.append(line)
        if '"end"' in line:
            cluster.over()
    assert reader.error is None


@pytest.mark.parametrize(
    ("last", "log", "ends"),
    [
        ("Complete SUCCEEDED", "", ""),
        ("Failed FAILED no room", "", "job-x: Failed FAILED no room; kubectl -n raypath logs -l job-name=job-x"),
        ("ValidationFailed  no such queue", "", "job-x: ValidationFailed no such queue; kubectl"),
        ("Failed FAILED", "raypath: S3 is away; try again\nended\n", "job-x: S3 is away; try again; kubectl"),
        ("Complete FAILED", '@raypath {"end": cut\n', "job-x: Complete FAILED"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_of_a_driver_that_says_no_end_kuberay_tells_it(cluster: Cluster, last: str, log: str, ends: str) -> None:
    run = _run(cluster)
    cluster.states("Initializing", "Running RUNNING", last)
    (cluster.folder / "log-1").write_text(log)
    (cluster.folder / "over").touch()
    end = cluster.watch(run)
    assert cluster.last().status == ("failed" if ends else "done")
    if not ends:
        return end.raise_error()
    with pytest.raises(PlatformError) as told:
        end.raise_error()
    assert str(told.value).startswith(ends)


def test_of_rays_message_its_first_line_is_told() -> None:
    status = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "message": "Job failed.\nlast line of the log"}
    assert str(RayJobState.from_manifest({"spec": {}, "status": status})) == "Running RUNNING Job failed."


@pytest.mark.usefixtures("quick")
def test_another_attempt_is_followed_after_one_that_failed(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(cluster)
    cluster.states(*["Running RUNNING"] * 2, "Retrying FAILED", "Initializing", *["Running RUNNING"] * 2)
    cluster.told(_theirs(run), {"read": "running"}, {"read": "failed"}, end=BAD)
    cluster.told(_theirs(run), {"read": "running"}, {"read": "done"}, end=DONE, attempt=2)
    cluster.over()
    assert cluster.watch(run) == DONE
    said = capsys.readouterr().out
    assert said.index("read         failed") < said.index("job-x: Retrying FAILED") < said.index("read         done")


@pytest.mark.usefixtures("quick")
def test_what_the_driver_ended_with_is_raised_here(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, though Ray repeats a log's end where a job failed."""
    run = _run(cluster)
    cluster.states("Running RUNNING")
    cluster.told(_theirs(run), {"read": "running"}, {"read": "failed"}, end=BAD)
    log = cluster.folder / "log-1"
    log.write_text(f"{log.read_text()}ERR cli.py: Job failed\n{log.read_text()}")
    cluster.over("Failed FAILED Job entrypoint command failed with exit code 2")
    with pytest.raises(RaypathError, match="step read: no column x; name it"):
        cluster.watch(run).raise_error()
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("read")] == [
        "read         running",
        "read         failed in 0.0 s",
    ]


@pytest.mark.usefixtures("quick")
def test_a_job_is_late(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.states("Running RUNNING")
    (cluster.folder / "seconds").write_text("1")
    with pytest.raises(PlatformError, match="job-x did not end within 1 s; kubectl -n raypath describe rayjob job-x"):
        cluster.watch(_run(cluster))
    why = 'error: container "submitter" in pod "job-x-1" is waiting to start: ContainerCreating'
    assert capsys.readouterr().out.splitlines() == ["job-x: Running RUNNING", f"job-x: no log yet: {why}"]


@pytest.mark.slow
def test_a_job_that_finds_no_room_says_so(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Before, where no node is as large; while it waits, where they are full."""
    (cluster.folder / "nodes").write_text('{"items": [{"status": {"allocatable": {"cpu": "1", "memory": "1Gi"}}}]}')
    said = _ended(cluster.start(*LINE), 2)
    assert "no node has 2 CPUs" in said
    assert not (cluster.folder / "manifest").exists()
    full = [{"reason": "Unschedulable", "message": "0/1 nodes are available"}]
    (cluster.folder / "pods").write_text(json.dumps({"items": [{"status": {"conditions": full}}]}))
    run = _run(cluster)
    cluster.states("Initializing", "Running RUNNING")
    cluster.told(_theirs(run), *STEPS, end=DONE)
    cluster.over()
    assert cluster.watch(run) == DONE
    assert capsys.readouterr().out.count("job-x: a pod cannot be scheduled: 0/1 nodes are available") == 1


def test_left_by_ctrl_c_the_run_goes_on_and_is_found_again(cluster: Cluster) -> None:
    cluster.states("Initializing", "Running RUNNING")
    client = cluster.start(*LINE)
    theirs = cluster.submitted()
    cluster.told(theirs, {"read": "running"})
    until(lambda: cluster.last().step("read").status == "running")
    client.send_signal(signal.SIGINT)
    said = _ended(client, 130)
    assert f"detached; `raypath runs --follow {theirs.id}` attaches again" in said
    assert not [p for p in psutil.process_iter() if {str(cluster.folder), "logs"} <= set(_words(p))]
    assert "at kuberay://here/raypath" in _ended(cluster.start("runs"), 0)
    # The same line attaches too, and makes no second job.
    (cluster.folder / "manifest").unlink()
    again = cluster.start(*LINE)
    assert again.stderr is not None
    assert again.stderr.readline() == f"{theirs.id} is already running; attaching\n"
    assert "is already running; raypath runs --follow" in _ended(cluster.start(*LINE, "--fresh", "read"), 2)
    other = cluster.start("runs", "--follow", "last")
    cluster.told(theirs, {"read": "done"}, end=DONE)
    cluster.over()
    for client in (again, other):
        said = _ended(client, 0)
        assert said.count("read         done") == 1, said
        assert said.splitlines()[-1].startswith("done in 4.0 s")
    assert not (cluster.folder / "manifest").exists()
    assert "--context here" in (cluster.folder / "calls").read_text().splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_twice_stops_the_job(cluster: Cluster) -> None:
    cluster.states("Running RUNNING")
    client = cluster.start(*LINE)
    theirs = cluster.submitted()
    cluster.told(theirs, {"read": "running"})
    until(lambda: cluster.last().step("read").status == "running")
    client.send_signal(signal.SIGINT)
    assert client.stderr is not None
    while "Ctrl-C again" not in (line := client.stderr.readline()):
        assert line, "it ended"
    client.send_signal(signal.SIGINT)
    assert _ended(client, 130).endswith("stopping\nraypath: interrupted; run the same command again to resume\n")
    assert "delete rayjob job-x" in (cluster.folder / "calls").read_text()
    assert (cluster.last().status, cluster.last().step("read").status) == ("stopped", "stopped")


def test_a_run_that_the_cluster_does_not_know_is_told(cluster: Cluster) -> None:
    run = _run(cluster)
    run.job_id = "job-x"
    run.save(cluster.home)
    cluster.states("GONE")
    said = _ended(cluster.start("runs", "--follow", run.id), 1)
    assert said.endswith("raypath: the cluster has no job job-x; run the same command again\n")
