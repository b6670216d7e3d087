"""Follow a remote run: show the events of its driver like those of a local run.

The run continues without this machine. Ctrl-C detaches from it, a second one stops it.
"""

from __future__ import annotations

import queue
import sys
import time
from collections import deque
from pathlib import Path
from typing import Protocol

from raypath.components.core.errors import UserError
from raypath.deploy.console.live_view import LiveView, PlainView, view_for
from raypath.deploy.console.run_report import show_result
from raypath.deploy.console.terminal import Terminal
from raypath.deploy.execution.cache_key import settings_digest
from raypath.deploy.execution.run_history import Run, RunStatus, begin, load_runs
from raypath.deploy.launchers import RunRequest
from raypath.deploy.remote.events import RunEnd, RunMirror
from raypath.deploy.remote.log_stream import TERMINAL, LogStream, Notice
from raypath.deploy.store.store import Store

_STATUS = {"SUCCEEDED": RunStatus.DONE, "FAILED": RunStatus.FAILED, "STOPPED": RunStatus.STOPPED}
STOP_WINDOW = 5.0
"""Seconds after a first Ctrl-C in which a second one stops the job; without one the client detaches."""


class JobClient(Protocol):
    """Client for the jobs of a cluster."""

    address: str

    def status(self, job: str) -> tuple[str, str] | None:
        """(PENDING, RUNNING or one of TERMINAL; message), None for an unknown job."""
        ...

    def stop(self, job: str) -> None:
        """Request a stop; returns before the job has stopped."""
        ...

    def log_stream(self, job: str, reconnect_timeout: float) -> LogStream:
        """Stream the job's log; a connection may be lost for that many seconds."""
        ...


def attach_if_running(request: RunRequest, jobs: JobClient, reconnect_timeout: float) -> bool:
    """Follow the unfinished run of the same request, if there is one. Raises the error that it ends with."""
    before = _running(request, jobs)
    if before is None:
        return False
    if request.fresh:
        raise UserError(f"{before.id} is already running", fix=f"raypath runs --follow {before.id}, or stop it first")
    report(f"{before.id} is already running; attaching")
    follow(request.home, before, jobs, reconnect_timeout)
    return True


def _running(request: RunRequest, jobs: JobClient) -> Run | None:
    same = (request.workflow, settings_digest(request.graph), jobs.address)
    before = [r for r in load_runs(request.home) if (r.workflow, r.settings_digest, r.cluster) == same and r.job_id]
    status = jobs.status(before[-1].job_id) if before else None
    return None if status is None or status[0] in TERMINAL else before[-1]


def new_run(request: RunRequest, cluster: str) -> Run:
    """Record a run of this request at a cluster, or take the last unfinished one, which then resumes."""
    Store(request.home).open()
    graph = request.graph
    names = [node.name for node in graph.nodes]
    return begin(request.home, request.workflow, settings_digest(graph), graph.params.flat(), names, cluster=cluster)


def follow(home: Path, run: Run, jobs: JobClient, reconnect_timeout: float) -> None:
    """Show the run until it ends; Ctrl-C detaches, twice stops the job. Raises the error that the run ended with."""
    try:
        end = watch(home, run, jobs.log_stream(run.job_id, reconnect_timeout), Terminal())
    except KeyboardInterrupt:
        _detach_or_stop(run, jobs)
        end = watch(home, run, jobs.log_stream(run.job_id, reconnect_timeout), Terminal())
    end.raise_error()
    if end.result is None:
        raise KeyboardInterrupt  # the job was stopped, from here or elsewhere
    show_result(end.endpoint(), run, end.seconds or run.ended - run.started)


def _detach_or_stop(run: Run, jobs: JobClient) -> None:
    try:  # the second Ctrl-C may come as soon as the message is there
        report(f"\n{run.id} continues on the cluster. Press Ctrl-C again within {STOP_WINDOW:.0f} s to stop it.")
        time.sleep(STOP_WINDOW)
    except KeyboardInterrupt:
        report("stopping")
        jobs.stop(run.job_id)
        return
    report(f"detached; `raypath runs --follow {run.id}` attaches again")
    raise SystemExit(130)


def report(text: str) -> None:
    """Print a message to stderr, apart from results."""
    print(text, file=sys.stderr, flush=True)


def watch(home: Path, run: Run, stream: LogStream, console: Terminal) -> RunEnd:
    """Show a run until it ends, and keep its log in `home`. KeyboardInterrupt leaves it running."""
    mirror, log = RunMirror(home, run), deque[str](maxlen=200)
    stream.start()
    try:
        with view_for(home, console) as view:
            while _next(stream, mirror, log, view):
                pass
            if mirror.end is None and stream.status in TERMINAL:
                mirror.close(_STATUS[stream.status])
            view.update(run)
    finally:
        stream.close()
    (home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "logs" / f"{run.id}.log").write_text("\n".join(log), encoding="utf-8")
    if stream.error is not None and mirror.end is None:
        raise stream.error
    return mirror.end or stream.end_of_lost_driver(log)


def _next(stream: LogStream, mirror: RunMirror, log: deque[str], view: LiveView | PlainView) -> bool:
    """Handle the next line; False at the end of the stream."""
    try:
        line = stream.lines.get(timeout=0.2)
    except queue.Empty:
        view.update(mirror.run)
        return True
    if line is None:
        return False
    if isinstance(line, Notice):
        view.console.print(line, markup=False, highlight=False, soft_wrap=True)
    elif not mirror.apply(line):
        log.append(line)
    view.update(mirror.run)
    return True
