"""What is sent to MLflow for each event of a spool, call by call, and what happens where MLflow rejects it.

MLflow itself is tested with its server (test_tracking.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from raypath.components.core.context import Tracking
from raypath.components.tracking import uploader
from raypath.components.tracking.uploader import Uploader


class Server:
    """MLflow's client: keeps the calls, and runs by id."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.runs: dict[str, Any] = {}
        self.stages = {"id of exp": "active"}
        self.fail: Callable[[str], None] = lambda call: None

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def _called(self, *call: Any) -> None:
        self.fail(call[0])
        self.calls.append(call)

    def get_experiment_by_name(self, name: str) -> Any:
        return self.get_experiment(f"id of {name}")

    def get_experiment(self, experiment: str) -> Any:
        stage = self.stages[experiment]
        tags = {"mlflow.experimentKind": "x"}
        return SimpleNamespace(experiment_id=experiment, lifecycle_stage=stage, tags=tags)

    def restore_experiment(self, experiment: str) -> None:
        self._called("restore experiment", experiment)
        self.stages[experiment] = "active"

    def search_runs(self, experiments: list[str], wanted: str, view: Any = None, max_results: int = 0) -> list[Any]:
        self._called("search", experiments, wanted, view, max_results)
        return [run for run in self.runs.values() if wanted == f"tags.`raypath.id` = '{run.tags['raypath.id']}'"]

    def create_run(self, experiment: str, start: int, tags: dict[str, str], run_name: str) -> Any:
        self._called("create", experiment, start, tags, run_name)
        name = f"run-{len(self.runs)}"
        info = SimpleNamespace(run_id=name, experiment_id=experiment, lifecycle_stage="active")
        data = SimpleNamespace(params={})
        self.runs[name] = SimpleNamespace(info=info, data=data, tags=tags)
        return self.runs[name]

    def get_run(self, run: str) -> Any:
        return self.runs[run]

    def restore_run(self, run: str) -> None:
        self._called("restore run", run)
        self.runs[run].info.lifecycle_stage = "active"

    def update_run(self, run: str, status: str) -> None:
        self._called("update", run, status)

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        points = [(each.key, each.value, each.timestamp, each.step) for each in metrics]
        settings = [(each.key, each.value) for each in params]
        self._called("batch", run, points, settings)
        self.runs[run].data.params |= dict(settings)

    def set_tag(self, run: str, key: str, value: str) -> None:
        self._called("tag", run, key, value)

    def log_artifact(self, run: str, path: str, folder: str | None) -> None:
        self._called("artifact", run, Path(path).read_text(), Path(path).name, folder)

    def set_terminated(self, run: str, status: str, end: int) -> None:
        self._called("end", run, status, end)

    def log_inputs(self, run: str, inputs: list[Any]) -> None:
        [given] = inputs
        data = given.dataset
        tags = [(tag.key, tag.value) for tag in given.tags]
        self._called("inputs", run, data.name, data.digest, data.source_type, data.source, data.profile, tags)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(Uploader, "client", made)
    monkeypatch.setattr(uploader, "reachable", lambda uri: uri == "here")
    return made


def _tracking(spool: Path, uri: str = "here") -> Tracking:
    return Tracking(uri=uri, experiment="exp", parent="outer", spool=str(spool))


def _spool(folder: Path, *events: dict[str, Any], name: str = "s") -> Uploader:
    path = folder / f"{name}.jsonl"
    with open(path, "a", encoding="utf-8") as file:
        for event in events:
            file.write(json.dumps({"time": 7, **event}) + "\n")
    return Uploader(_tracking(folder), path)


def _open(**changes: Any) -> dict[str, Any]:
    facts = {"id": "outer/s", "name": "s", "parent": "", "experiment": "exp", "tags": {"a": "b"}, "params": {"x": "1"}}
    return {"event": "open", **facts, **changes}


def _metrics(step: int, **values: float) -> dict[str, Any]:
    return {"event": "metrics", "step": step, "values": values}


def test_each_event_is_a_call(server: Server, tmp_path: Path) -> None:
    (tmp_path / "plot").write_text("picture")
    artifact = {"event": "artifact", "path": str(tmp_path / "plot")}
    made = _spool(
        tmp_path,
        _open(),
        _metrics(1, loss=0.5, f1=0.25),
        _metrics(2, loss=0.25),
        {"event": "params", "values": {"x": "2", "y": "3"}},
        {"event": "tags", "values": {"c": "d", "e": "f"}},
        {"event": "dataset", "name": "n", "digest": "d", "source": "uri", "context": "train", "rows": 9},
        artifact | {"folder": "plots"},
        artifact | {"folder": ""},
        artifact | {"path": str(tmp_path / "gone"), "folder": ""},
        {"event": "close", "status": "FINISHED"},
    )
    assert made.upload()
    run = "run-0"
    search = ("search", ["id of exp"], "tags.`raypath.id` = 'outer/s'", 3, 1)
    assert server.calls == [
        search,
        ("create", "id of exp", 7, {"a": "b", "raypath.id": "outer/s"}, "s"),
        ("batch", run, [], [("x", "1")]),
        ("batch", run, [("loss", 0.5, 7, 1), ("f1", 0.25, 7, 1), ("loss", 0.25, 7, 2)], []),
        ("batch", run, [], [("y", "3")]),
        ("tag", run, "c", "d"),
        ("tag", run, "e", "f"),
        (
            *("inputs", run, "n", "d", "local", '{"uri": "uri"}', '{"num_rows": 9}'),
            [("mlflow.data.context", "train")],
        ),
        ("artifact", run, "picture", "plot", "plots"),
        ("artifact", run, "picture", "plot", None),
        ("end", run, "FINISHED", 7),
    ]
    state = json.loads((tmp_path / "s.state").read_text())
    assert state == {"offset": (tmp_path / "s.jsonl").stat().st_size, "run": run}
    assert made.upload()
    assert len(server.calls) == 11, "nothing is sent twice"
    assert _spool(tmp_path, _open(), _metrics(3, loss=0.1)).upload()
    assert server.calls[11:] == [("update", run, "RUNNING"), ("batch", run, [("loss", 0.1, 7, 3)], [])]


def test_a_run_comes_after_its_parent(server: Server, tmp_path: Path) -> None:
    made = _spool(tmp_path, _open(parent="outer"), _metrics(1, loss=0.5))
    assert not made.upload()
    assert server.names() == ["search"]
    assert not (tmp_path / "s.state").exists()
    _spool(tmp_path, _open(id="outer", name="outer"), name="outer").upload()
    assert made.upload()
    tags = {"a": "b", "raypath.id": "outer/s", "mlflow.parentRunId": "run-0"}
    assert ("create", "id of exp", 7, tags, "s") in server.calls
    (tmp_path / "s.state").unlink()
    server.runs["run-1"].info.lifecycle_stage = "deleted"
    server.calls.clear()
    assert made.upload()
    assert server.names() == ["search", "search", "restore run", "update", "batch"], "it is found, not made anew"


@pytest.mark.parametrize(
    ("counts", "batches"), [([499], [499]), ([500], [500]), ([499, 2], [500, 1]), ([300, 300, 300], [500, 100, 300])]
)
def test_points_are_sent_in_batches(server: Server, tmp_path: Path, counts: list[int], batches: list[int]) -> None:
    events = [_metrics(n, **{f"m{k}": 0.0 for k in range(count)}) for n, count in enumerate(counts)]
    assert _spool(tmp_path, _open(params={}), *events).upload()
    assert [len(call[2]) for call in server.calls if call[0] == "batch"] == batches
    settings = {f"p{n}": "1" for n in range(201)}
    assert _spool(tmp_path, {"event": "params", "values": settings}).upload()
    assert [len(call[3]) for call in server.calls if call[0] == "batch"][-3:] == [100, 100, 1]


def test_what_is_rejected_stays_in_the_spool_and_what_was_deleted_is_restored(server: Server, tmp_path: Path) -> None:
    made = _spool(tmp_path, _open(params={}))
    assert made.upload()
    _spool(tmp_path, {"event": "tags", "values": {"a": "b"}}, _metrics(1, loss=0.5))
    before = (tmp_path / "s.state").read_text()

    def reject(call: str) -> None:
        if call == "tag":
            raise error

    server.fail = reject
    error: Exception = OSError("away")
    assert not made.upload()
    error = MlflowException("deleted")
    server.stages["id of exp"], server.runs["run-0"].info.lifecycle_stage = "deleted", "deleted"
    server.calls.clear()
    assert not made.upload()
    assert server.names() == ["restore experiment", "restore run"]
    assert not made.upload()
    assert server.names() == ["restore experiment", "restore run"], "they are restored once"
    assert (tmp_path / "s.state").read_text() == before
    server.fail = lambda call: None
    assert made.upload()
    assert server.names()[2:] == ["tag", "batch"]


def test_nothing_is_sent_without_a_server_or_by_two(server: Server, tmp_path: Path) -> None:
    made = _spool(tmp_path, _open())
    for uri in ("", "elsewhere"):
        assert not Uploader(_tracking(tmp_path, uri), made.path).upload()
    (tmp_path / "t.jsonl").touch()
    assert Uploader(_tracking(tmp_path, ""), tmp_path / "t.jsonl").upload(), "there is nothing to send"
    with uploader.locked(tmp_path / "s.lock"):
        assert not made.upload()
    assert server.calls == []
    (tmp_path / "s.state").write_text("{")
    assert made.upload()


def test_a_line_that_is_not_complete_waits(server: Server, tmp_path: Path) -> None:
    made = _spool(tmp_path, _open(params={}))
    with open(made.path, "a", encoding="utf-8") as file:
        file.write('no json\n{"event": "tags", "time": 7, ')
    assert made.upload()
    assert server.names() == ["search", "create"]
    with open(made.path, "a", encoding="utf-8") as file:
        file.write('"values": {"a": "b"}}\n')
    assert made.upload()
    assert server.names()[2:] == ["tag"]


def test_the_oldest_spool_comes_first(tmp_path: Path) -> None:
    for name, text in (("a", '{"time": 9}\n'), ("b", '{"time": 8}\n'), ("c", "x\n"), ("d", "{}\n"), ("e", "")):
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "f.state").touch()
    assert [path.stem for path in uploader._spooled(tmp_path)] == ["c", "d", "e", "b", "a"]


@pytest.mark.parametrize("rejected", [True, False])
def test_what_is_left_is_named(
    tmp_path: Path, rejected: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left, waits = [2], []

    def upload_all(tracking: Tracking, wait: float = 0.0) -> int:
        waits.append(wait)
        return left[0]

    monkeypatch.setattr(uploader, "upload_all", upload_all)
    monkeypatch.setattr(uploader.login, "is_rejected", lambda uri: rejected and uri == "here")
    thread = uploader.UploadThread(_tracking(tmp_path))
    thread.start()
    with caplog.at_level(logging.WARNING, "raypath"):
        assert thread.stop(0.5) == 2
    fix = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    why = f"rejects this login; {fix}" if rejected else "has not received all"
    assert caplog.messages == [f"MLflow {why}; the metrics are kept and uploaded with the next run"]
    assert waits == [0.5]
    left[0] = 0
    caplog.clear()
    thread = uploader.UploadThread(_tracking(tmp_path))
    thread.start()
    assert thread.stop(0.0) == 0
    assert not caplog.messages


def test_uploads_are_repeated_until_their_time_is_over(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(uploader.time, "time", lambda: clock[0])

    def sleep(seconds: float) -> None:
        assert seconds == 0.5
        clock[0] += seconds

    monkeypatch.setattr(uploader.time, "sleep", sleep)
    _spool(tmp_path, _open())
    _spool(tmp_path, _open(), name="t")
    assert uploader.upload_all(_tracking(tmp_path, ""), 1.0) == 2
    assert clock[0] == 101.0
    assert uploader.upload_all(_tracking(tmp_path, "")) == 2
    assert clock[0] == 101.0
    assert uploader.upload_all(_tracking(tmp_path), 30.0) == 0
    assert clock[0] == 101.0, "nothing is left to wait for"
