"""A run on a real Ray cluster with token authentication: submitted, watched, left, found again, stopped, cut off."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from raypath.deploy.cli import main as cli
from raypath.deploy.execution.run_history import Run, RunStatus, StepState, StepStatus, begin, load_runs
from raypath.deploy.launchers import prepare
from raypath.deploy.ray_cluster import driver
from raypath.deploy.ray_cluster import launcher as ray_job
from raypath.deploy.ray_cluster.driver import SUBMITTER, versions
from raypath.deploy.ray_cluster.jobs_api import JobsApiClient
from raypath.deploy.remote.events import EVENT_PREFIX, EventWriter, RunEnd, RunMirror
from raypath.deploy.remote.log_stream import TERMINAL
from raypath.deploy.remote.package import pack
from tests.chaos.cluster import Nodes, free_port
from tests.user_packages import TRAPS, WORKFLOW, write_packages

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow
FLOW = '''
"""Count, then wait: a team's own workflow, in a repository of its own."""

import time
from pathlib import Path

from raypath.components import Context, DataError, Dataset, Params, component, workflow


class CountParams(Params):
    """Number of rows, and a file to wait for."""

    rows: int = 3
    """Rows."""
    until: str = ""
    """A file."""


class Flow(Params):
    """Two steps."""

    first: CountParams = CountParams()
    second: CountParams = CountParams()


@component(version=1)
def count(ctx: Context, params: CountParams, before: Dataset | None = None) -> Dataset:
    """Count."""
    if params.rows < 0:
        raise DataError(f"{params.rows} rows", fix="count upwards")
    for tenth in range(600):
        if not params.until or Path(params.until).exists():
            break
        ctx.report(tenth, 600, "waiting")
        time.sleep(0.1)
    (ctx.out / "rows").write_text(str(params.rows))
    return Dataset(rows=params.rows)


@workflow
def flow(p: Flow) -> Dataset:
    """Count twice."""
    return count(p.second, count(p.first))
'''


class Project:
    """A git repository with a workflow of its own, and the command line in processes of its own."""

    def __init__(self, folder: Path, nodes: Nodes) -> None:
        self.folder, self.nodes, self.home = folder, nodes, folder / ".raypath"
        self.address = nodes.address

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """Begin `raypath ARGS`."""
        known = {**os.environ, **self.nodes.env, "PYTHONPATH": str(ROOT), "RAYPATH_HOME": str(self.home)}
        command, pipe = [sys.executable, "-W", "error", "-m", "raypath.deploy.cli.main", *args], subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=known | env, stdout=pipe, stderr=pipe, text=True)

    def line(self, *args: str) -> list[str]:
        """The command line of a run."""
        settings = ["-s", f"ray.home={self.folder / 'nodes'}", *args]
        return ["run", "flow:flow", "--on", "ray", "--address", self.address, *settings]

    def raypath(self, *args: str, status: int = 0, **env: str) -> str:
        """Run `raypath ARGS` to its end and return what it printed; its exit status must be as wanted."""
        return _end(self.start(*args, **env), status)

    def last(self) -> Run:
        """As this machine knows it."""
        return load_runs(self.home)[-1]

    def until(self, true: Callable[[Run], bool]) -> Run:
        """Wait for the latest run to be as wanted."""
        return self.nodes.until(lambda: next((r for r in load_runs(self.home)[-1:] if true(r)), None))  # type: ignore[no-any-return]


def _end(process: subprocess.Popen[str], status: int) -> str:
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == status, f"{process.args!r}\n{out}\n{err}"
    assert "Traceback" not in err
    return out + err


def _runs(step: str) -> Callable[[Run], bool]:
    return lambda run: run.step(step).status == "running"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, nodes: Nodes) -> Project:
    folder = tmp_path_factory.mktemp("team")
    (folder / "flow.py").write_text(FLOW)
    (folder / ".gitignore").write_text(".raypath/\nsecrets.env\n__pycache__/\nnodes/\ngo\nthen\n")
    (folder / "secrets.env").write_text("PASSWORD=hunter2")
    write_packages(folder)
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    return Project(folder, nodes)


Here = Callable[..., tuple[str, str]]


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """`here(main, words, status, **environment)`: what it prints in the project's folder, in this process."""

    def call(main: Callable[[list[str]], int], words: list[str], status: int, **environment: str) -> tuple[str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(driver, "configure_process", lambda **_: None)
            patch.chdir(project.folder)
            patch.syspath_prepend(str(project.folder))
            for name, value in {"RAYPATH_HOME": str(project.home), **environment}.items():
                patch.setenv(name, value)
            assert main(words) == status
        sys.modules.pop("flow", None)
        return capsys.readouterr()

    return call


def _git(folder: Path, *args: str) -> None:
    subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True)


def test_left_by_ctrl_c_the_run_goes_on_and_is_found_again(project: Project) -> None:
    line, go = project.line("-s", f"second.until={project.folder / 'go'}"), project.folder / "go"
    client = project.start(*line)
    run = project.until(_runs("count-2"))
    client.send_signal(signal.SIGINT)
    said = _end(client, 130)
    assert f"detached; `raypath runs --follow {run.id}` attaches again" in said
    # The same line attaches too, and starts no second job.
    again = project.start(*line)
    assert again.stderr is not None
    assert again.stderr.readline() == f"{run.id} is already running; attaching\n"
    go.touch()
    said = project.raypath("runs", "--follow", run.id)
    assert "count-2      done in" in said
    assert "done in" in said.splitlines()[-1]
    assert _end(again, 0).splitlines()[-1].startswith("done in")
    assert project.last().job_id == run.job_id
    assert not list((project.folder / "nodes").rglob("*.env"))


def test_what_the_cluster_has_no_room_for_is_refused_before_submission(project: Project) -> None:
    project.nodes.until(project.nodes.alive)
    before = len(load_runs(project.home))
    settings = ["-s", "serve.gpus=1", "-s", "ray.mlflow=http://127.0.0.1:9"]
    line = ["run", "text_classification", "--on", "ray", "--address", project.nodes.address, *settings]
    said = _end(project.start(*line), 2)
    assert said.startswith("raypath: serve.gpus=1: the cluster has capacity for 0 such replicas; wanted 1; lower")
    assert len(load_runs(project.home)) == before


@pytest.mark.heavy
def test_ctrl_c_twice_stops_the_job_and_the_same_line_goes_on(project: Project) -> None:
    line = project.line("-s", "first.rows=5", "-s", f"second.until={project.folder / 'never'}")
    client = project.start(*line)
    run = project.until(_runs("count-2"))
    client.send_signal(signal.SIGINT)
    time.sleep(1)
    client.send_signal(signal.SIGINT)
    assert _end(client, 130).endswith("raypath: interrupted; run the same command again to resume\n")
    assert project.last().status == "stopped"
    assert not project.nodes.running("ray::step:count")
    client = project.start(*line)
    again = project.until(_runs("count-2"))
    assert (again.id, again.step("count").status) == (run.id, "reused")
    _kill_driver(project.nodes)
    said = _end(client, 1)
    assert said.splitlines()[-1].startswith("raypath: the driver on the cluster died: ")
    assert project.last().status == "failed"


def _kill_driver(nodes: Nodes) -> None:
    [driver] = [
        p
        for p in psutil.Process(nodes.nodes["head"].pid).children(recursive=True)
        if p.cmdline()[1:3] == ["-m", "raypath.deploy.ray_cluster.driver"]
    ]
    driver.kill()


@pytest.mark.heavy
def test_a_connection_that_breaks_is_taken_up_again(project: Project) -> None:
    with _Relay(project.nodes.dashboard) as relay:
        project.address = f"http://127.0.0.1:{relay.port}"
        client = project.start(*project.line("-s", f"second.until={project.folder / 'then'}"))
        project.until(_runs("count-2"))
        relay.cut(4)
        (project.folder / "then").touch()
        said = _end(client, 0)
    project.address = project.nodes.address
    assert "connection lost, reconnecting" in said
    assert said.count("count        done") + said.count("count        reused") == 1, said
    assert said.count("count-2      done") == 1, said


class _Relay(threading.Thread):
    """A network between client and cluster that can be cut."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.to, self.port, self.open = port, free_port(), True
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.pairs: list[socket.socket] = []

    def __enter__(self) -> _Relay:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.cut(0)
        self.join(5)

    def run(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.to))
            self.pairs += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()

    def cut(self, seconds: float) -> None:
        self.open = False
        for end in self.pairs:
            _close(end)
        self.pairs.clear()
        time.sleep(seconds)
        self.open = True


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    _close(source)
    _close(target)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def test_a_step_that_fails_there_is_told_here(project: Project) -> None:
    said = project.raypath(*project.line("-s", "second.rows=-1"), status=2)
    assert said.splitlines()[-1] == "raypath: step count-2: -1 rows; count upwards"


@pytest.mark.heavy
def test_storage_that_the_nodes_do_not_reach_is_told_before_a_step_runs(project: Project) -> None:
    said = project.raypath(*project.line("-s", "ray.store=/proc/none", "-s", "first.rows=9"), status=2)
    assert said.splitlines()[-1].startswith("raypath: cannot create folders in /proc/none")
    said = project.raypath(*project.line("-s", "ray.mlflow=http://127.0.0.1:9", "-s", "first.rows=9"), status=2)
    assert said.splitlines()[-1].startswith("raypath: node 127.0.0.2: MLflow at http://127.0.0.1:9 does not answer")
    assert all(step.status == "waiting" for step in project.last().steps)


@pytest.mark.parametrize(
    ("change", "says", "status"),
    [
        ({"RAY_AUTH_TOKEN": "wrong"}, "rejects the token; set RAY_AUTH_TOKEN", 2),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "RAY_AUTH_TOKEN_PATH /nowhere: No such file", 2),
        ({"address": "http://127.0.0.1:9"}, "no Ray cluster answers at http://127.0.0.1:9", 1),
        ({"address": "ray://127.0.0.1:10001"}, "not HTTP; give the dashboard's address", 2),
        ({"address": ""}, "needs the cluster's address; give --address http://HEAD:8265", 2),
        ({"workflow": "text_classification"}, "step register needs an MLflow server", 2),
        ({"fresh": "count2"}, "--fresh count2: no such step; did you mean count-2?", 2),
    ],
)
def test_what_cannot_be_is_one_line(
    project: Project, here: Here, change: dict[str, str], says: str, status: int
) -> None:
    address = change.get("address", project.address)
    fresh = ["--fresh", change["fresh"]] if "fresh" in change else []
    variables = {name: value for name, value in change.items() if name.isupper()}
    line = ["run", change.get("workflow", "flow:flow"), "--on", "ray", "--address", address, *fresh]
    out, said = here(cli.main, line, status, **project.nodes.env | variables)
    assert said.startswith("raypath: ")
    assert says in said
    assert len((out + said).strip().splitlines()) == 1


def _end_of(out: str) -> RunEnd:
    return RunEnd.model_validate(json.loads(out.splitlines()[-1].removeprefix(EVENT_PREFIX))["end"])


def test_another_python_is_refused_by_the_driver(here: Here) -> None:
    other = json.dumps(versions() | {"Python": "3.9"})
    end = _end_of(here(driver.main, ["flow:flow", "--run", "a"], 2, **{SUBMITTER: other})[0])
    assert "and this machine 3.9" in end.what
    assert end.fix.startswith("install Python")


@pytest.mark.parametrize("workflow", ["nowhere:flow", "flow:nowhere", "nowhere"])
def test_an_image_that_lacks_the_workflow_is_told_by_the_driver(here: Here, workflow: str) -> None:
    end = _end_of(here(driver.main, [workflow, "--run", "a"], 2)[0])
    assert end.what.startswith(f"the cluster lacks {workflow}: ")
    assert end.fix == "build the image from the checkout with it"
    assert here(driver.main, [workflow], 2) == ("", f"raypath: {end.what}; {end.fix}\n")


def test_packages_of_a_team_run_there_and_a_driver_that_nobody_follows_writes_for_a_person(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a RayJob that a schedule began, whose log kubectl shows. Other modules are not executed."""
    for name, value in project.nodes.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.folder)
    monkeypatch.syspath_prepend(str(project.folder))
    settings = {"ray.home": str(project.folder / "read"), "second.more": "4"}
    _, job, params = prepare("ray", WORKFLOW, settings, project.home)
    jobs, upload = JobsApiClient(project.address), pack(project.folder, job.graph)
    environment = ray_job._environment(jobs.upload(upload.name, upload.data), params)  # type: ignore[arg-type]
    jobs.submit("read", job.driver_command(), environment, {})
    project.nodes.until(lambda: (jobs.status("read") or ("",))[0] in TERMINAL, 60)
    for module in [name for name in sys.modules if name.startswith(("acme", "components_acme"))]:
        del sys.modules[module]
    log = jobs.log("read")
    assert EVENT_PREFIX not in log
    lines = log.splitlines()
    assert [line.split(" in ")[0] for line in lines if "done in" in line] == [
        "count        done",
        "count-2      done",
        "done",
    ]
    assert any(re.fullmatch(r"\d{8}-\d{6}-counted-[0-9a-f]{4}", line) for line in lines)
    spools = [path.read_text().splitlines() for path in (project.folder / "read" / "spool").glob("*.jsonl")]
    last = [json.loads(spool[-1]) for spool in spools]
    assert [(event["event"], event.get("status")) for event in last] == [("close", "FINISHED")] * 3
    made = {path.read_text() for path in (project.folder / "read").rglob("words.txt")}
    assert made == {"tea", "tea tea tea tea tea"}
    # Ray unpacks the package into a folder of the session.
    unpacked = [path for path in project.nodes.temp.rglob("deploy.py") if "working_dir_files" in path.parts]
    assert unpacked
    assert not [path for folder in (project.folder, project.nodes.temp) for path in folder.rglob("*.executed")]
    assert all((unpacked[0].parent / trap).exists() for trap in TRAPS)


def test_another_ray_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components.core.errors import UserError

    for name, value in project.nodes.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ray_job, "versions", lambda: {"Ray": "2.1.0", "Python": "3.11"})
    with pytest.raises(UserError, match=r"the cluster runs Ray .*, and this machine 2\.1\.0; pip install ray=="):
        ray_job._check_cluster(JobsApiClient(project.address), ray_job.RayParams())
    ray_job._check_cluster(JobsApiClient(project.address), ray_job.RayParams(same_versions=False))


def test_lines_of_a_driver_draw_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("there/runs", "here/runs", "there/attempts"):
        (tmp_path / name).mkdir(parents=True)
    there = begin(tmp_path / "there", "flow", "p", {}, ["a", "b"])
    events = EventWriter(tmp_path / "there")
    there.steps[0] = StepState(name="a", status=StepStatus.RUNNING, key="ab12", started=1.0)
    said = '{"done": 1, "total": 2, "message": "x", "time": 3}'
    (tmp_path / "there" / "attempts" / "ab12.progress").write_text(said)
    events.update(there)
    events.update(there)
    there.steps[0].status, there.status = StepStatus.DONE, RunStatus.DONE
    events.update(there)
    events.end(RunEnd(what="no", kind="DataError"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7  # run, a, its progress, b; a; run; end
    here = RunMirror(tmp_path / "here", begin(tmp_path / "here", "flow", "p", {}, ["a", "b"], cluster="http://x"))
    assert all(here.apply(line) for line in lines)
    assert here.run.steps == there.steps
    assert here.run.status is RunStatus.DONE
    assert here.end == RunEnd(what="no", kind="DataError")
    assert (
        tmp_path / "here" / "attempts" / "ab12.progress"
    ).read_text() == '{"done": 1, "total": 2, "message": "x", "time": 3}'


@pytest.mark.parametrize(
    "line", ["plain words", f"{EVENT_PREFIX}{{", f'{EVENT_PREFIX}{{"progress": {{"key": "../x", "line": {{}}}}}}']
)
def test_other_lines_are_not_ours(tmp_path: Path, line: str) -> None:
    (tmp_path / "runs").mkdir()
    mirror = RunMirror(tmp_path, begin(tmp_path, "flow", "p", {}, ["a"], cluster="http://x"))
    assert not mirror.apply(line)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audit", "runs"]
