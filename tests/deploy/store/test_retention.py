"""Retention: what is older than its days goes, and nothing that a run, a record or a process still uses."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypath.components.core.errors import ParamsError, PlatformError
from raypath.deploy.cli import main as cli
from raypath.deploy.store import retention
from raypath.deploy.store.audit.log import read
from raypath.deploy.store.store import Store

NOW = time.time()
DIGESTS = [character * 64 for character in "abcdef"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home").open()


def aged(path: Path, days: float, text: str = "x") -> Path:
    """A file of this age; its folder as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for each in (path, path.parent):
        os.utime(each, (NOW - days * 86400,) * 2)
    return path


def step(store: Store, key: str, digest: str, days: float, nested: str = "") -> Path:
    """A committed step whose record and artifact have this age."""
    artifact: dict[str, Any] = {"uri": f"artifacts/{digest}", "digest": digest}
    if nested:
        artifact["train"] = {"uri": f"artifacts/{nested}/train", "digest": "0" * 64}
    aged(store.root / "artifacts" / digest / "part.parquet", days)
    return aged(store.root / "records" / f"{key}.json", days, json.dumps({"key": key, "artifact": artifact}))


def run(store: Store, name: str, days: float, keys: list[str], status: str = "done") -> Path:
    ended = NOW - days * 86400
    steps = [{"key": key} for key in keys]
    text = json.dumps({"status": status, "started": ended - 5, "ended": ended, "steps": steps})
    return aged(store.home / "runs" / f"{name}.json", days, text)


def applied(store: Store, **days: int) -> dict[str, int]:
    retention.write_days(store.home, days)
    return {each.kind: each.count for each in retention.apply(store, now=NOW)}


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_deleted_unless_days_are_set(store: Store) -> None:
    step(store, "k1", DIGESTS[0], 9999)
    assert retention.apply(store, now=NOW) == []
    assert left(store.root / "artifacts") == [DIGESTS[0]]


def test_artifacts_go_with_their_last_use(store: Store) -> None:
    step(store, "old", DIGESTS[0], 40)
    step(store, "reused", DIGESTS[1], 40)
    run(store, "r1", 5, ["reused"])
    step(store, "young", DIGESTS[2], 2, nested=DIGESTS[3])  # its training split lies in an older artifact
    step(store, "split", DIGESTS[3], 40)
    step(store, "shared", DIGESTS[0], 40)
    assert applied(store, artifacts=30) == {"artifacts": 4}, "three records and a folder"
    assert left(store.root / "artifacts") == DIGESTS[1:4]
    assert left(store.root / "records") == ["reused.json", "young.json"]
    assert applied(store, artifacts=30) == {"artifacts": 0}


def test_a_run_in_progress_keeps_its_artifacts(store: Store) -> None:
    step(store, "k1", DIGESTS[0], 400)
    file = run(store, "r1", 399, ["k1"], status="running")
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": os.getpid()}))
    assert applied(store, artifacts=30, runs=30) == {"artifacts": 0, "runs": 0}


@pytest.mark.parametrize("pid", [0, os.getpid()], ids=["ended", "number-of-a-later-process"])
def test_a_run_that_was_killed_is_not_in_progress_for_ever(store: Store, pid: int) -> None:
    step(store, "k1", DIGESTS[0], 400)
    file = run(store, "r1", 399, ["k1"], status="running")
    aged(file, 399, json.dumps({**json.loads(file.read_text()), "ended": 0.0, "pid": pid}))
    assert applied(store, artifacts=30, runs=30) == {"artifacts": 2, "runs": 1}


def test_an_artifact_whose_record_is_not_written_yet_stays(store: Store) -> None:
    aged(store.root / "artifacts" / DIGESTS[0] / "part", 0.0)
    aged(store.root / "artifacts" / DIGESTS[1] / "part", 40)  # left behind by a crash
    assert applied(store, artifacts=30) == {"artifacts": 1}
    assert left(store.root / "artifacts") == [DIGESTS[0]]


def test_scratch_of_a_step_in_progress_stays(store: Store) -> None:
    for key in ("held", "free", "young"):
        aged(store.root / "scratch" / key / "checkpoint", 1 if key == "young" else 40)
    with store.lock("held"):
        assert applied(store, scratch=30) == {"scratch": 1}
    assert left(store.root / "scratch") == ["held", "young"]


def test_dated_files_go_by_whole_days(store: Store) -> None:
    day: Callable[[int], str] = lambda days: time.strftime("%Y-%m-%d", time.gmtime(NOW - days * 86400))  # noqa: E731
    predictions, usage = store.home / "predictions" / "reviews", store.home / "access" / "usage"
    for days in (0, 30, 31, 32, 100):
        aged(predictions / f"{day(days)}.reviews.v1.r0.1.parquet", days)
        aged(usage / f"{day(days)}.r0.1.parquet", days)
    aged(usage / "limits" / "state", 500)
    assert applied(store, predictions=30, usage=62) == {"predictions": 3, "usage": 1}
    assert [name[:10] for name in left(predictions)] == [day(30), day(0)]
    assert "limits" in left(usage)


def test_logs_and_runs(store: Store) -> None:
    for name in ("ray.log", "mlflow.log", "ray.log.1", "20260101-chat-ab12.log"):
        aged(store.home / "logs" / name, 40)
    run(store, "old", 40, [])
    run(store, "young", 10, [])
    assert applied(store, logs=30, runs=30) == {"runs": 1, "logs": 2}
    assert left(store.home / "logs") == ["mlflow.log", "ray.log"]
    assert left(store.home / "runs") == ["young.json"]


def test_links_are_removed_and_not_followed(store: Store, tmp_path: Path) -> None:
    outside = aged(tmp_path / "outside" / "precious", 400)
    link = store.root / "artifacts" / DIGESTS[0]
    link.symlink_to(outside.parent)
    assert applied(store, artifacts=30) == {"artifacts": 1}
    assert outside.exists()
    assert not link.is_symlink()


def test_bad_days(store: Store) -> None:
    for changes, message in (({"models": 3}, "no kind models"), ({"usage": 30}, "62 days"), ({"runs": 0}, "1 days")):
        with pytest.raises(ParamsError, match=message):
            retention.write_days(store.home, changes)
    (store.home / "retention.json").write_text('{"runs": "soon"}')
    with pytest.raises(PlatformError, match="is corrupt"):
        retention.apply(store)


def test_the_commands(store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_HOME", str(store.home))
    aged(store.home / "logs" / "run.log", 40, "x" * 2000)
    assert cli.main(["retention", "apply"]) == 0
    assert cli.main(["retention", "set", "logs=30", "runs=365"]) == 0
    assert cli.main(["retention", "apply", "--dry-run"]) == 0
    assert (store.home / "logs" / "run.log").exists()
    assert cli.main(["retention", "apply"]) == 0
    assert cli.main(["retention", "set", "runs=never"]) == 0
    assert cli.main(["retention", "set", "runs"]) == 2
    out = capsys.readouterr().out
    assert "nothing is deleted" in out
    assert "logs         1 older than 30 days would be deleted, 2.0 kB" in out
    assert "logs         1 older than 30 days deleted, 2.0 kB" in out
    assert "runs         kept" in out
    assert [(each.action, each.detail) for each in read(store.home)][1] == ("retention.apply", {"logs": 1})
    assert retention.read_days(store.home) == {"logs": 30}
