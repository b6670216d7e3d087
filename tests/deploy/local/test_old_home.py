"""A home that was made before homes had a format version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from raypath.components.core.errors import UserError
from raypath.deploy.cli import main as cli
from raypath.deploy.execution.run_history import RunStatus, StepStatus, last_key_inputs, load_runs
from raypath.deploy.local import processes, services, state
from raypath.deploy.local.ray_connection import connection
from raypath.deploy.store.home_format import FORMAT
from raypath.deploy.store.store import Store
from tests.waiting import until

KEY, DIGEST = "ab" * 32, "cd" * 32
INPUTS = {"component": "components.read:read", "version": "1"}
ARTIFACT = {"uri": f"artifacts/{DIGEST}", "digest": DIGEST, "rows": 3, "columns": ["text"], "labels": []}
STEP = {
    "name": "read", "status": "done", "reason": "it has not run before", "key": KEY, "ingredients": INPUTS,
    "artifact": ARTIFACT, "started": 1.0, "seconds": 2.0, "attempts": 1, "error": "", "warnings": [],
}  # fmt: skip
RUN = {
    "id": "20261101-120000-flow-ab12", "workflow": "flow", "plan": "ee" * 32, "params": {"seed": 0}, "status": "done",
    "started": 1.0, "ended": 3.0, "pid": 1, "where": "", "job": "", "steps": [STEP],
}  # fmt: skip
RECORD = {
    "key": KEY, "step": "read", "component": "components.read:read", "ingredients": INPUTS, "artifact": ARTIFACT,
    "started": 1.0, "seconds": 2.0, "run": RUN["id"],
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for name in ("runs", "records", f"artifacts/{DIGEST}"):
        (home / name).mkdir(parents=True)
    (home / "runs" / f"{RUN['id']}.json").write_text(json.dumps(RUN))
    (home / "records" / f"{KEY}.json").write_text(json.dumps(RECORD))
    (home / "artifacts" / DIGEST / "rows.parquet").write_bytes(b"x")
    return home


@pytest.fixture
def old_service(home: Path) -> Iterator[psutil.Process]:
    """A process that services.json of the old form names as Ray."""
    code = "import time; time.sleep(300)"
    env = {**os.environ, processes.MARK: "old"}
    sleeping = subprocess.Popen([sys.executable, "-c", code], env=env, start_new_session=True)
    found = psutil.Process(sleeping.pid)
    service = {
        "pid": sleeping.pid, "create_time": found.create_time(), "address": "127.0.0.1:20001", "dashboard": "",
        "log": str(home / "logs" / "ray.log"), "serve_port": 20002, "mark": "old",
    }  # fmt: skip
    (home / "services.json").write_text(json.dumps({"ray": service, "mlflow": None, "ports": {}, "outside": ""}))
    yield found
    sleeping.kill()
    sleeping.wait()


def test_its_run_history_and_records_are_read(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [run] = load_runs(home)
    assert (run.status, run.step("read").status) == (RunStatus.DONE, StepStatus.DONE)
    assert (run.settings_digest, run.cluster, run.job_id) == ("ee" * 32, "", "")
    assert last_key_inputs(home, "flow") == {"read": INPUTS}
    store = Store(home).open()
    record = store.record(KEY)
    assert record
    assert record.key_inputs == INPUTS
    assert Path(record.artifact["uri"]) == home / "artifacts" / DIGEST
    assert json.loads((home / "raypath.json").read_text()) == {"format": FORMAT}
    monkeypatch.setenv("RAYPATH_HOME", str(home))
    assert cli.main(["runs", "last"]) == 0
    assert str(RUN["id"]) in capsys.readouterr().out


def test_its_services_have_to_be_stopped_first_and_down_stops_them(home: Path, old_service: psutil.Process) -> None:
    assert services.status(home)[0].state == "up"
    with pytest.raises(UserError, match=r"earlier Raypath are running in .*; stop them with `raypath down`"):
        services.up(home, mlflow=False)
    with pytest.raises(UserError, match="earlier Raypath"):
        connection.connect(home)
    assert processes.lives(old_service)
    assert services.down(home) == ["ray: stopped, 1 process"]
    until(lambda: not processes.lives(old_service))
    assert state.read(home).format == FORMAT


def test_services_without_a_login_of_this_format_have_to_be_stopped_too(
    home: Path, old_service: psutil.Process
) -> None:
    found = json.loads((home / "services.json").read_text())
    (home / "services.json").write_text(json.dumps({**found, "format": FORMAT}))
    with pytest.raises(UserError, match=r"earlier Raypath are running in .*; stop them with `raypath down`"):
        services.up(home, mlflow=False)
    assert services.down(home) == ["ray: stopped, 1 process"]


@pytest.mark.parametrize(
    ("text", "says"), [('{"format": 99}', "has format 99"), ("{}", "is corrupt"), ("x", "is corrupt")]
)
def test_a_home_of_a_later_raypath_is_rejected(home: Path, text: str, says: str) -> None:
    (home / "raypath.json").write_text(text)
    with pytest.raises(UserError, match=says):
        Store(home).open()
    with pytest.raises(UserError, match=says):
        services.up(home, mlflow=False)
    assert (home / "raypath.json").read_text() == text
