"""Follow a run elsewhere: the log of its driver, drawn as a run on this machine is.

The run goes on when this machine is away. Ctrl-C lets go of it, a second one stops it.
"""

from __future__ import annotations

import queue
import sys
import time
from collections import deque
from pathlib import Path
from typing import Protocol

from rich.console import Console

from raypath.components.core.errors import UserError
from raypath.deploy.console.live_view import LiveView, PlainView, view_for
from raypath.deploy.console.run_report import show_result
from raypath.deploy.execution.cache_key import settings_digest
from raypath.deploy.execution.run_history import Run, RunStatus, begin, load_runs
from raypath.deploy.launchers import RunRequest
from raypath.deploy.remote.events import End, RunMirror
from raypath.deploy.remote.log_stream import TERMINAL, LogStream, Notice
from raypath.deploy.store.store import Store

STOP_WINDOW = 5.0
"""Seconds after a first Ctrl-C in which a second one stops the job; without one we detach."""

_STATUS = {"SUCCEEDED": RunStatus.DONE, "FAILED": RunStatus.FAILED, "STOPPED": RunStatus.STOPPED}


class JobClient(Protocol):
    """A cluster's jobs."""

    address: str

    def status(self, job: str) -> tuple[str, str] | None:
        """(PENDING, RUNNING or one of TERMINAL; what is said of it), None for an unknown job."""
        ...

    def stop(self, job: str) -> None:
        """Ask a job to stop; returns before it has."""
        ...

    def log_stream(self, job: str, reconnect_timeout: float) -> LogStream: ...


def attach_if_running(request: RunRequest, jobs: JobClient, reconnect_timeout: float) -> bool:
    """Follow the run of the same line there that has not ended, if there is one. Raises what it ends with."""
    before = _running(request, jobs)
    if before is None:
        return False
    if request.fresh:
        raise UserError(f"{before.id} runs there already", fix=f"raypath runs --follow {before.id}, or stop it first")
    say(f"{before.id} runs there already; attaching")
    follow(request.home, before, jobs, reconnect_timeout)
    return True


def _running(request: RunRequest, jobs: JobClient) -> Run | None:
    plan = (request.workflow, settings_digest(request.graph), jobs.address)
    before = [r for r in load_runs(request.home) if (r.workflow, r.settings_digest, r.cluster) == plan and r.job_id]
    status = jobs.status(before[-1].job_id) if before else None
    return None if status is None or status[0] in TERMINAL else before[-1]


def new_run(request: RunRequest, cluster: str) -> Run:
    """Record the run in the local run history: a new one, or the unfinished one of the same command."""
    Store(request.home).open()
    graph, names = request.graph, [node.name for node in request.graph.nodes]
    return begin(request.home, request.workflow, settings_digest(graph), graph.params.flat(), names, cluster=cluster)


def follow(home: Path, run: Run, jobs: JobClient, reconnect_timeout: float) -> None:
    """Draw the run; Ctrl-C detaches, twice stops the job. Raises what the run ended with."""
    try:
        end = watch(home, run, jobs.log_stream(run.job_id, reconnect_timeout), Console())
    except KeyboardInterrupt:
        _ask(run, jobs)
        end = watch(home, run, jobs.log_stream(run.job_id, reconnect_timeout), Console())
    end.raise_error()
    if end.result is None:
        raise KeyboardInterrupt  # it was stopped, by us or by somebody else
    show_result(end.endpoint(), run, end.seconds or run.ended - run.started)


def _ask(run: Run, jobs: JobClient) -> None:
    """After a first Ctrl-C: detach, unless a second one comes; then stop the job."""
    try:
        say(f"\n{run.id} goes on on the cluster. Ctrl-C again within {STOP_WINDOW:.0f} s stops it.")
        time.sleep(STOP_WINDOW)
    except KeyboardInterrupt:
        say("stopping")
        jobs.stop(run.job_id)
        return
    say(f"detached; `raypath runs --follow {run.id}` attaches again")
    raise SystemExit(130)


def say(text: str) -> None:
    """Tell the user what is no result."""
    print(text, file=sys.stderr, flush=True)


def watch(home: Path, run: Run, tail: LogStream, console: Console) -> End:
    """Draw a run until it ends. KeyboardInterrupt leaves it running."""
    mirror, said = RunMirror(home, run), deque[str](maxlen=200)
    tail.start()
    try:
        with view_for(home, console) as view:
            while _next(tail, mirror, said, view):
                pass
            if mirror.end is None and tail.status in TERMINAL:
                mirror.close(_STATUS[tail.status])
            view.update(run)
    finally:
        tail.close()
    (home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "logs" / f"{run.id}.log").write_text("\n".join(said), encoding="utf-8")
    if tail.error is not None and mirror.end is None:
        raise tail.error
    return mirror.end or tail.outcome_without_report(said)


def _next(tail: LogStream, mirror: RunMirror, said: deque[str], view: LiveView | PlainView) -> bool:
    """Take in what has come; False at the end."""
    try:
        line = tail.lines.get(timeout=0.2)
    except queue.Empty:
        view.update(mirror.run)
        return True
    if line is None:
        return False
    if isinstance(line, Notice):
        view.console.print(line, markup=False, highlight=False, soft_wrap=True)
    elif not mirror.take(line):
        said.append(line)
    view.update(mirror.run)
    return True
