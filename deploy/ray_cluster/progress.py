"""How far steps are, from the nodes where they run to the driver: a line a second through Ray's own key-value store.

A step writes it into a file (`Context.report`), and so do its numbers: both are on its node.
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

PACE = 1.0
"""Seconds between two looks."""
_SPACE = b"raypath-progress"


def run_and_report(spec: StepSpec) -> Outcome:
    """`run_step` on a node that shares the driver's home, telling the driver how far it is."""
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(spec, over), name="raypath-progress", daemon=True)
    thread.start()
    try:
        return run_step(spec)
    finally:
        over.set()
        thread.join()


def run_with_own_home(spec: StepSpec) -> Outcome:
    """The same on a node with a home of its own: all of the step stays there; its numbers are carried from there."""
    import ray

    here = dataclasses.replace(spec, node=ray.get_runtime_context().get_node_id())
    with _ray_data_here(here.node), _carried(Tracking(**spec.tracking)):
        return run_and_report(here)


@contextmanager
def _ray_data_here(node: str) -> Iterator[None]:
    from ray.data import DataContext

    options = DataContext.get_current().execution_options
    before, options.label_selector = options.label_selector, {"ray.io/node-id": node}
    try:
        yield
    finally:
        options.label_selector = before


@contextmanager
def _carried(tracking: Tracking) -> Iterator[None]:
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


def _tell(spec: StepSpec, over: threading.Event) -> None:
    from ray.experimental import internal_kv

    path, said, key = progress_file(Path(spec.home), spec.key), "", spec.key.encode()
    while not over.wait(PACE):
        line = path.read_text("utf-8") if path.exists() else ""
        if line != said:
            said = line
            internal_kv._internal_kv_put(key, line.encode(), namespace=_SPACE)
    internal_kv._internal_kv_del(key, namespace=_SPACE)


class ProgressCollector:
    """The driver's side: puts what steps tell where its watcher looks."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._looked = 0.0

    def fetch(self) -> None:
        """Copy what is new, once a second at most."""
        from ray.experimental import internal_kv

        if time.monotonic() - self._looked < PACE:
            return
        self._looked = time.monotonic()
        for key in internal_kv._internal_kv_list(b"", namespace=_SPACE):
            line = internal_kv._internal_kv_get(key, namespace=_SPACE)
            path = progress_file(self._home, key.decode())
            if line and _time(line.decode()) > _time(path.read_text("utf-8") if path.exists() else ""):
                write_atomically(path, line.decode())


def _time(line: str) -> float:
    try:
        return float(json.loads(line)["time"])
    except (ValueError, KeyError):
        return 0.0
