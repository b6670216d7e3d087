"""Upload spooled events to MLflow, in order, exactly once.

For each `X.jsonl` an `X.state` has the upload offset and the MLflow run's id. Repeating an upload after a crash is
harmless: a run is looked up by Raypath's id before it is created, and the server drops duplicate points, since their
timestamps are those of the events.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raypath.components.core.context import Tracking
from raypath.components.core.files import locked
from raypath.components.models.process import without_collections
from raypath.components.tracking import login, tags
from raypath.components.tracking.experiments import experiment_id
from raypath.components.tracking.limits import limit_requests
from raypath.components.tracking.run import parse

PERIOD = 1.0
"""Seconds between two uploads."""
BATCH = 500
"""Metrics per request; the server accepts at most 1,000."""
_log = logging.getLogger(__name__)


def reachable(uri: str, timeout: float = 1.0) -> bool:
    """Check for a TCP listener at a URI; MLflow's client would retry for minutes."""
    parts = urlsplit(uri)
    if not parts.hostname or login.is_foreign(uri):
        return False
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=timeout):
            return True
    except OSError:
        return False


class Uploader:
    """Uploads one spool file."""

    def __init__(self, tracking: Tracking, path: Path) -> None:
        self.tracking = tracking
        self.path = path
        self.state_path = path.with_suffix(".state")
        self._client: Any = None

    def upload(self) -> bool:
        """Upload new events. Return False if the server is away or another process is uploading."""
        with locked(self.path.with_suffix(".lock"), fcntl.LOCK_EX | fcntl.LOCK_NB) as acquired:
            return acquired and self._upload()

    def _upload(self) -> bool:
        state = _read_state(self.state_path)
        events = list(_events_after(self.path, int(state["offset"])))
        if not events:
            return True
        if not self.tracking.uri or not reachable(self.tracking.uri):
            return False
        from mlflow.exceptions import MlflowException

        try:
            return self._send(events, state)
        except MlflowException:
            # Restarting or rejecting: the events stay in the spool for the next attempt.
            with contextlib.suppress(MlflowException, OSError):
                self._restore(state["run"])
            return False
        except OSError:
            return False

    def _send(self, events: list[tuple[dict[str, Any], int]], state: dict[str, Any]) -> bool:
        points: list[Any] = []
        for event, end in events:
            if event["event"] == "metrics":
                points += _points(event)
            if points and (event["event"] != "metrics" or len(points) >= BATCH):
                self._send_points(state, points)
                points = []
            if event["event"] != "metrics" and not self._send_event(event, state):
                return False
            if not points:
                self._advance(state, end)
        if points:
            self._send_points(state, points)
            self._advance(state, events[-1][1])
        return True

    def _send_points(self, state: dict[str, Any], points: list[Any]) -> None:
        for start in range(0, len(points), BATCH):
            self.client.log_batch(state["run"], metrics=points[start : start + BATCH])

    def _advance(self, state: dict[str, Any], offset: int) -> None:
        state["offset"] = offset
        mark = self.state_path.with_suffix(".next")
        mark.write_text(json.dumps(state), encoding="utf-8")
        os.replace(mark, self.state_path)

    def _send_event(self, event: dict[str, Any], state: dict[str, Any]) -> bool:
        kind = event["event"]
        if kind == "open":
            return self._open(event, state)
        if kind == "params":
            self._params(state["run"], event["values"])
        elif kind == "tags":
            for key, value in event["values"].items():
                self.client.set_tag(state["run"], key, value)
        elif kind == "dataset":
            self._dataset(state["run"], event)
        elif kind == "artifact" and Path(event["path"]).is_file():
            self.client.log_artifact(state["run"], event["path"], event["folder"] or None)
        elif kind == "close":
            self.client.set_terminated(state["run"], event["status"], event["time"])
        return True

    def _open(self, event: dict[str, Any], state: dict[str, Any]) -> bool:
        run_tags = {**event["tags"], tags.ID: event["id"]}
        experiment = experiment_id(self.client, event["experiment"])
        if event["parent"]:
            above = self._find(experiment, event["parent"])
            if above is None:
                return False
            run_tags["mlflow.parentRunId"] = above
        run = state["run"] or self._find(experiment, event["id"])
        if run is None:
            made = self.client.create_run(experiment, event["time"], tags=run_tags, run_name=event["name"])
            run = made.info.run_id
        else:
            self.client.update_run(run, status="RUNNING")
        state["run"] = run
        self._params(run, event["params"])
        return True

    def _params(self, run: str, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        known = set(self.client.get_run(run).data.params)
        new = [Param(k, v) for k, v in values.items() if k not in known]
        for start in range(0, len(new), 100):
            self.client.log_batch(run, params=new[start : start + 100])

    def _dataset(self, run: str, event: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name=event["name"],
            digest=event["digest"],
            source_type="local",
            source=json.dumps({"uri": event["source"]}),
            profile=json.dumps({"num_rows": event["rows"]}),
        )
        tag = InputTag("mlflow.data.context", event["context"])
        self.client.log_inputs(run, [DatasetInput(data, [tag])])

    def _restore(self, run: str | None) -> None:
        """Restore a run, and its experiment, that were deleted in MLflow while the run is recorded."""
        if run is None:
            return
        found = self.client.get_run(run).info
        experiment = self.client.get_experiment(found.experiment_id)
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        if self.client.get_run(run).info.lifecycle_stage == "deleted":
            self.client.restore_run(run)

    def _find(self, experiment: str, run_id: str) -> str | None:
        from mlflow.entities import ViewType

        wanted = f"tags.`{tags.ID}` = '{run_id}'"
        runs = self.client.search_runs([experiment], wanted, ViewType.ALL, max_results=1)
        if runs and runs[0].info.lifecycle_stage == "deleted":
            self.client.restore_run(runs[0].info.run_id)
        return str(runs[0].info.run_id) if runs else None

    @property
    def client(self) -> Any:
        if self._client is None:
            limit_requests()
            login.install()
            with without_collections():
                from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=self.tracking.uri)
        return self._client


class UploadThread:
    """Thread that uploads all spool files of a run."""

    def __init__(self, tracking: Tracking) -> None:
        self.tracking = tracking
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow-upload")

    def start(self) -> None:
        """Start uploading."""
        self._thread.start()

    def stop(self, wait: float) -> int:
        """Stop, and upload the rest for up to `wait` seconds. Return how many files are incomplete, with a warning."""
        self._stop.set()
        self._thread.join(wait)
        left = upload_all(self.tracking, wait)
        if left:
            why = f"rejects this login; {login.FIX}" if login.is_rejected(self.tracking.uri) else "has not received all"
            _log.warning("MLflow %s; the metrics are kept and uploaded with the next run", why)
        return left

    def _work(self) -> None:
        while not self._stop.wait(PERIOD):
            upload_all(self.tracking)


def upload_all(tracking: Tracking, wait: float = 0.0) -> int:
    """Upload all spool files, for up to `wait` seconds. Return how many are incomplete."""
    end = time.time() + wait
    while True:
        left = sum(not Uploader(tracking, path).upload() for path in _spooled(Path(tracking.spool)))
        if not left or time.time() >= end:
            return left
        time.sleep(0.5)


def _spooled(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"), key=_age)


def _age(path: Path) -> tuple[int, str]:
    # Oldest first: a run's parent is created before the run.
    with contextlib.suppress(OSError, ValueError, KeyError), open(path, encoding="utf-8") as file:
        return int(json.loads(file.readline())["time"]), path.name
    return 0, path.name


def _read_state(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return {"offset": 0, "run": None}


def _events_after(path: Path, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            event = parse(line)
            if event is not None:
                yield event, offset


def _points(event: dict[str, Any]) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(key, value, event["time"], event["step"]) for key, value in event["values"].items()]
