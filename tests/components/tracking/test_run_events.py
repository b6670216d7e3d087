"""Events that a run writes to its spool, the experiments of MLflow, and whether its server listens."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from raypath.components.core.context import Tracking
from raypath.components.tracking import experiments, uploader
from raypath.components.tracking.run import attach, end_run, spool_name, track
from tests.raised import raised


def _tracking(spool: Path) -> Tracking:
    return Tracking(uri="here", experiment="exp", parent="outer", spool=str(spool))


def _open(**changes: Any) -> dict[str, Any]:
    facts = {"id": "outer/s", "name": "s", "parent": "", "experiment": "exp", "tags": {"a": "b"}, "params": {"x": "1"}}
    return {"event": "open", **facts, **changes}


def _metrics(step: int, **values: float) -> dict[str, Any]:
    return {"event": "metrics", "step": step, "values": values}


def test_what_a_run_writes(tmp_path: Path) -> None:
    tracking = _tracking(tmp_path / "spool")
    (tmp_path / "plot").write_text("picture")
    with track(tracking, name="s", params={"x": "y" * 7000}, tags={"a": "b"}) as run:
        run.metrics({"loss": 1}, 0)
        run.metrics({"loss": 2, "f1": 1}, 0)
        run.params({"z": "y" * 7000})
        run.tags({"c": "d"})
        run.dataset("n", "d" * 40, "uri", "train", 9)
        run.artifact(tmp_path / "plot", "plots")
        (tmp_path / "plot").unlink()
    name = spool_name("outer/s")
    assert len(name) == 24
    path = tmp_path / "spool" / f"{name}.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(abs(event.pop("time") - uploader.time.time() * 1000) < 60_000 for event in events)
    kept = path.with_suffix(".files") / "plots" / "plot"
    assert kept.read_text() == "picture"
    assert events == [
        _open(parent="outer", tags={"raypath.kind": "step", "a": "b"}, params={"x": "y" * 6000}),
        _metrics(0, loss=1.0),
        _metrics(0, f1=1.0),
        {"event": "params", "values": {"z": "y" * 6000}},
        {"event": "tags", "values": {"c": "d"}},
        {"event": "dataset", "name": "n", "digest": "d" * 36, "source": "uri", "context": "train", "rows": 9},
        {"event": "artifact", "path": str(kept), "folder": "plots"},
        {"event": "close", "status": "FINISHED"},
    ]
    assert (path.stat().st_mode & 0o777, (tmp_path / "spool").stat().st_mode & 0o777) == (0o600, 0o700)
    with attach(tracking, "s") as other:
        other.metrics({"loss": 3.0}, 0)
        other.metrics({"loss": 3.0}, 1)
    assert len(path.read_text().splitlines()) == 9
    with track(tracking, name="t", kind="trial", parent="outer/s", run_id="own") as trial:
        trial.close("KILLED")
        trial.metrics({"loss": 1.0}, 5)
    lines = (tmp_path / "spool" / f"{spool_name('own')}.jsonl").read_text().splitlines()
    first, last = map(json.loads, lines)
    assert (first["id"], first["name"], first["parent"], first["tags"]) == (
        "own",
        "t",
        "outer/s",
        {"raypath.kind": "trial"},
    )
    assert last["status"] == "KILLED"
    with track(Tracking(), name="off") as off:
        off.artifact(tmp_path / "gone")
        off.metrics({"loss": 1.0})


@pytest.mark.parametrize(("error", "status"), [(None, "FINISHED"), (SystemExit, "FINISHED"), (ValueError, "FAILED")])
def test_the_status_of_a_run_is_that_of_its_block(tmp_path: Path, error: Any, status: str) -> None:
    def fail() -> None:
        with track(_tracking(tmp_path), name="s"):
            if error is not None:
                raise error

    if error is None:
        fail()
    else:
        with pytest.raises(error):
            fail()
    path = tmp_path / f"{spool_name('outer/s')}.jsonl"
    assert json.loads(path.read_text().splitlines()[-1])["status"] == status
    before = path.read_text()
    end_run(_tracking(tmp_path), "outer/s", "FAILED")
    end_run(_tracking(tmp_path), "unknown", "FAILED")
    end_run(Tracking(), "outer/s", "FAILED")
    assert path.read_text() == before, "it has ended"


def test_an_experiment_is_made_restored_or_made_by_another() -> None:
    calls: list[Any] = []
    found: list[Any] = []

    def make(name: str, tags: dict[str, str]) -> str:
        calls.append(("make", name, tags))
        if failing:
            found.extend(others)
            raise MlflowException("exists")
        return "7"

    server: Any = SimpleNamespace(
        get_experiment_by_name=lambda _: found[-1] if found else None,
        create_experiment=make,
        restore_experiment=lambda number: calls.append(("restore", number)),
        set_experiment_tag=lambda number, key, value: calls.append(("tag", number, key, value)),
    )
    failing, others = False, [SimpleNamespace(experiment_id=8, lifecycle_stage="deleted", tags={})]
    kind = ("mlflow.experimentKind", "custom_model_development")
    assert experiments.experiment_id(server, "e") == "7"
    failing = True
    assert experiments.experiment_id(server, "e") == "8"
    assert calls == [("make", "e", dict([kind]))] * 2 + [("restore", 8), ("tag", 8, *kind)]
    others[0].lifecycle_stage, others[0].tags, calls[:] = "active", dict([kind]), []
    assert experiments.experiment_id(server, "e") == "8"
    assert calls == []
    found.clear()
    others.clear()
    with pytest.raises(OSError, match=r"^experiment e cannot be created$"):
        experiments.experiment_id(server, "e")


def test_the_view_of_an_experiment_is_saved_once() -> None:
    tags: dict[str, str] = {}
    server: Any = SimpleNamespace(
        get_experiment=lambda _: SimpleNamespace(tags=tags),
        set_experiment_tag=lambda experiment, key, value: tags.update({f"{experiment}{key}": value, key: value}),
    )
    experiments.save_view(server, "7", ["evaluate/f1"])
    view = json.loads(tags["7mlflow.sharedViewState.raypath"])
    columns = [f"attributes.`{name}`" for name in ("Dataset", "Models", "Source", "Version")]
    assert json.loads(view.pop("state")) == {"selectedColumns": [*columns, "metrics.`evaluate/f1`"]}
    assert view == {"name": "Raypath", "createdAt": 0, "updatedAt": 0}
    before = dict(tags)
    experiments.save_view(server, "7", ["other"])
    assert tags == before
    assert experiments.runs_path("7") == "/#/experiments/7/runs?viewStateShareKey=raypath"


def test_a_token_that_is_missing_or_short(tmp_path: Path) -> None:
    from raypath.components.tracking.server.app import read_token

    file = tmp_path / "token"
    text = f"UserError: cannot read the token of MLflow in {file}: No such file or directory; create it"
    assert raised(lambda: read_token(file)) == text
    file.write_text("x" * 31 + "\n")
    text = f"UserError: the token in {file} has 31 characters; wanted 32 or more; replace it"
    assert raised(lambda: read_token(file)) == text
    file.write_text(" " + "x" * 32 + "\n")
    assert read_token(file) == "x" * 32


def test_a_listener_is_found_by_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def connect(address: Any, timeout: float) -> Any:
        asked.append((address, timeout))
        if address[0] == "gone":
            raise OSError
        return open("/dev/null", encoding="ascii")

    monkeypatch.setattr(uploader.socket, "create_connection", connect)
    foreign: list[str] = []
    monkeypatch.setattr(uploader.login, "is_foreign", lambda uri: uri in foreign)
    assert uploader.reachable("http://host")
    assert uploader.reachable("http://host:5000/x", timeout=2.0)
    assert not uploader.reachable("http://gone")
    assert not uploader.reachable("file")
    foreign.append("http://host")
    assert not uploader.reachable("http://host")
    assert asked == [(("host", 80), 1.0), (("host", 5000), 2.0), (("gone", 80), 1.0)]
