"""Progress of steps, from their nodes to the driver, through Ray's internal key-value store.

A step writes its progress (`Context.report`) and its metrics into files on its own node.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raypath.components.core.context import Tracking
from raypath.components.core.files import write_atomically
from raypath.deploy.execution.progress import progress_file
from raypath.deploy.execution.ray_platform import FLUSH
from raypath.deploy.execution.step import Outcome, StepSpec, run_step

INTERVAL = 1.0
"""Seconds between two updates."""
_SINTERVAL = b"raypath-progress"


def run_and_report(spec: StepSpec) -> Outcome:
    """`run_step` on a node that shares the driver's home, with progress sent to the driver."""
    done = threading.Event()
    thread = threading.Thread(target=_send_progress, args=(spec, done), name="raypath-progress", daemon=True)
    thread.start()
    try:
        return run_step(spec)
    finally:
        done.set()
        thread.join()


def run_with_own_home(spec: StepSpec) -> Outcome:
    """`run_and_report` on a node with its own home: the whole step stays there and uploads its metrics itself."""
    import ray

    here = dataclasses.replace(spec, node=ray.get_runtime_context().get_node_id())
    with _ray_data_on_node(here.node), _uploading_metrics(Tracking(**spec.tracking)):
        return run_and_report(here)


@contextmanager
def _ray_data_on_node(node: str) -> Iterator[None]:
    from ray.data import DataContext

    options = DataContext.get_current().execution_options
    before, options.label_selector = options.label_selector, {"ray.io/node-id": node}
    try:
        yield
    finally:
        options.label_selector = before


@contextmanager
def _uploading_metrics(tracking: Tracking) -> Iterator[None]:
    if not tracking.uri:
        yield
        return
    from raypath.components.tracking.uploader import UploadThread

    upload = UploadThread(tracking)
    upload.start()
    try:
        yield
    finally:
        upload.stop(FLUSH)


def _send_progress(spec: StepSpec, done: threading.Event) -> None:
    from ray.experimental import internal_kv

    path, sent, key = progress_file(Path(spec.home), spec.key), "", spec.key.encode()
    while not done.wait(INTERVAL):
        line = path.read_text("utf-8") if path.exists() else ""
        if line != sent:
            sent = line
            internal_kv._internal_kv_put(key, line.encode(), namespace=_SINTERVAL)
    internal_kv._internal_kv_del(key, namespace=_SINTERVAL)


class ProgressCollector:
    """Driver side: write the progress of remote steps into the files that the run watcher reads."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._fetched = 0.0

    def fetch(self) -> None:
        """Copy new progress, at most once a second."""
        from ray.experimental import internal_kv

        if time.monotonic() - self._fetched < INTERVAL:
            return
        self._fetched = time.monotonic()
        for key in internal_kv._internal_kv_list(b"", namespace=_SINTERVAL):
            line = internal_kv._internal_kv_get(key, namespace=_SINTERVAL)
            path = progress_file(self._home, key.decode())
            if line and _time(line.decode()) > _time(path.read_text("utf-8") if path.exists() else ""):
                write_atomically(path, line.decode())


def _time(line: str) -> float:
    try:
        return float(json.loads(line)["time"])
    except (ValueError, KeyError):
        return 0.0
