"""Track steps in MLflow through a local spool, so that an MLflow outage loses nothing.

Events are appended to a file, one a line; the process that runs the workflow uploads them (`uploader`). What cannot be
uploaded stays in the spool. A resumed step appends to the same file and MLflow run, and does not repeat points.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from raypath.components.core.context import Tracking
from raypath.components.encryption.vault import vault_for
from raypath.components.tracking.tags import KIND

SEALED = ".sealed"
"""End of the names of files that an encrypted home logs; `raypath encryption decrypt` reads them."""
SYSTEM_PERIOD = 5.0
"""Seconds between two samples of CPU and memory use."""


def spool_name(run_id: str) -> str:
    """Name the spool file of a run: a hash of its id, valid on every file system."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:24]


class Track:
    """MLflow run written through the spool. Use it as a context manager; `track` creates one."""

    def __init__(
        self, tracking: Tracking, run_id: str, opening: dict[str, Any] | None = None, system: bool = False
    ) -> None:
        self.tracking = tracking
        self.folder = Path(tracking.spool)
        self.path = self.folder / f"{spool_name(run_id)}.jsonl"
        self._opening = opening
        self._system = system
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._last_steps: dict[str, int] = {}
        self._file: IO[bytes] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if not self.tracking.spool:
            return self
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Lines are appended atomically, so that several processes can write to one run.
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._file = open(descriptor, "a+b", buffering=0)
        self._read_last_steps()
        if self._opening is not None:
            self._write("open", **self._opening)
        if self._system:
            self._thread = threading.Thread(target=self._sample, daemon=True, name="system-metrics")
            self._thread.start()
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        # Ray Tune stops trials early with SystemExit, which is not a failure.
        self.close("FINISHED" if kind in (None, SystemExit) else "FAILED")

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step. Points at steps that a key already has are skipped (a resumed run repeats them)."""
        new = {k: float(v) for k, v in values.items() if step > self._last_steps.get(k, -1)}
        if new:
            self._last_steps |= dict.fromkeys(new, step)
            self._write("metrics", values=new, step=step)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log params; the first value of a key is kept."""
        self._write("params", values={k: str(v)[:6000] for k, v in values.items()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; the last value of a key is kept."""
        self._write("tags", values=dict(values))

    def dataset(self, name: str, digest: str, source: str, context: str, rows: int) -> None:
        """Log an input dataset: `context` is train, valid or test."""
        self._write("dataset", name=name, digest=digest[:36], source=source, context=context, rows=rows)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Log a file. It is copied at once, since the step's folder moves when it is committed."""
        if self._file is None:
            return
        vault = vault_for(self.folder)
        name = path.name if vault is None else f"{path.name}{SEALED}"
        keep = self.path.with_suffix(".files") / folder / name
        keep.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if vault is None:
            shutil.copyfile(path, keep)
        else:
            vault.seal_file(vault.identity(keep), path, keep)
        self._write("artifact", path=str(keep), folder=folder)

    def close(self, status: str) -> None:
        """End the run."""
        if self._file is None:
            return
        if self._opening is not None:
            self._write("close", status=status)
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._file.close()
            self._file = None

    def _read_last_steps(self) -> None:
        """Read the last step of each metric, so that a resumed step does not repeat points."""
        assert self._file is not None
        self._file.seek(0)
        data = self._file.read()
        if data and not data.endswith(b"\n"):
            # The last line is incomplete: end it, readers skip invalid JSON.
            self._file.write(b"\n")
        for line in data.splitlines():
            event = parse(line)
            if event is not None and event["event"] == "metrics":
                for key in event["values"]:
                    self._last_steps[key] = max(self._last_steps.get(key, -1), event["step"])

    def _write(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "time": int(time.time() * 1000), **facts}) + "\n"
        with self._lock:
            if self._file is not None:
                self._file.write(line.encode())

    def _sample(self) -> None:
        """Sample CPU and memory use until the run is closed."""
        step = self._last_steps.get("system/cpu_utilization_percentage", -1) + 1
        while not self._stop.wait(SYSTEM_PERIOD):
            self.metrics(_system_metrics(), step)
            step += 1


def parse(line: bytes) -> dict[str, Any] | None:
    """Parse an event; None for an incomplete line."""
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return event


def attach(tracking: Tracking, name: str) -> Track:
    """Open a run that another process created with `track`, without ending it."""
    return Track(tracking, f"{tracking.parent}/{name}")


def track(
    tracking: Tracking,
    *,
    name: str,
    kind: str = "step",
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    parent: str | None = None,
    run_id: str | None = None,
    system: bool = False,
) -> Track:
    """Create a run named `name` below `parent` (Raypath's id; the workflow's run when None). Never raises if the server
    is away.

    kind: workflow, step or trial, stored as the tag raypath.kind. system: sample CPU and memory use as well.
    """
    above = tracking.parent if parent is None else parent
    own = run_id or f"{above}/{name}"
    opening = {
        "id": own,
        "name": name,
        "parent": above,
        "experiment": tracking.experiment,
        "tags": {KIND: kind, **(tags or {})},
        "params": {k: str(v)[:6000] for k, v in (params or {}).items()},
    }
    return Track(tracking, own, opening, system)


def end_run(tracking: Tracking, run_id: str, status: str) -> None:
    """End a run whose process ended before it could end the run itself. Runs that are not open are left alone."""
    if tracking.spool and _open_run(Path(tracking.spool) / f"{spool_name(run_id)}.jsonl") == run_id:
        _end(tracking, run_id, status)


def end_runs(tracking: Tracking, since: float, status: str) -> None:
    """End the runs below `tracking.parent` that are still open, such as those of steps whose processes were killed.

    since: Unix time at which the first of them may have begun; older files are not read.
    """
    for path in Path(tracking.spool).glob("*.jsonl") if tracking.spool else ():
        found = _open_run(path) if path.stat().st_mtime >= since else ""
        if found.startswith(f"{tracking.parent}/"):
            _end(tracking, found, status)


def _end(tracking: Tracking, run_id: str, status: str) -> None:
    with Track(tracking, run_id) as run:
        run._write("close", status=status)


def _open_run(path: Path) -> str:
    """Return the id of the run of a spool file if it is open, else ""."""
    events = [event for line in path.read_bytes().splitlines() if (event := parse(line))] if path.exists() else []
    last: dict[str, Any] = next((e for e in reversed(events) if e["event"] in ("open", "close")), {})
    return str(last.get("id", ""))  # a close event has none


def _system_metrics() -> dict[str, float]:
    """Read CPU and memory use, under MLflow's names of system metrics."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
    }
