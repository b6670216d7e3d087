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
from raypath.deploy.execution.cache_key import plan_of
from raypath.deploy.execution.run_history import Run, begin, load_runs
from raypath.deploy.launchers import Job
from raypath.deploy.remote.events import End, Picture
from raypath.deploy.remote.log_stream import ENDED, Note, Tail
from raypath.deploy.store.store import Store

GRACE = 5.0
"""Seconds after a first Ctrl-C in which a second one stops the job; without one we detach."""


class Jobs(Protocol):
    """A cluster's jobs."""

    address: str

    def status(self, job: str) -> tuple[str, str] | None:
        """(PENDING, RUNNING or one of ENDED; what is said of it), None for an unknown job."""
        ...

    def stop(self, job: str) -> None:
        """Ask a job to stop; returns before it has."""
        ...

    def tail(self, job: str, patience: float) -> Tail: ...


def taken_up(job: Job, jobs: Jobs, patience: float) -> bool:
    """Follow the run of the same line there that has not ended, if there is one. Raises what it ends with."""
    before = _running(job, jobs)
    if before is None:
        return False
    if job.fresh:
        raise UserError(f"{before.id} runs there already", fix=f"raypath runs --follow {before.id}, or stop it first")
    say(f"{before.id} runs there already; attaching")
    follow(job.home, before, jobs, patience)
    return True


def _running(job: Job, jobs: Jobs) -> Run | None:
    plan = (job.workflow, plan_of(job.graph), jobs.address)
    before = [r for r in load_runs(job.home) if (r.workflow, r.plan, r.where) == plan and r.job]
    status = jobs.status(before[-1].job) if before else None
    return None if status is None or status[0] in ENDED else before[-1]


def begun(job: Job, where: str) -> Run:
    """A run in the diary of this machine that goes there; or the last one of this line, which goes on."""
    Store(job.home).open()
    names = [node.name for node in job.graph.nodes]
    return begin(job.home, job.workflow, plan_of(job.graph), job.graph.params.flat(), names, where=where)


def follow(home: Path, run: Run, jobs: Jobs, patience: float) -> None:
    """Draw the run; Ctrl-C detaches, twice stops the job. Raises what the run ended with."""
    try:
        end = watch(home, run, jobs.tail(run.job, patience), Console())
    except KeyboardInterrupt:
        _ask(run, jobs)
        end = watch(home, run, jobs.tail(run.job, patience), Console())
    end.raise_error()
    if end.result is None:
        raise KeyboardInterrupt  # it was stopped, by us or by somebody else
    show_result(end.endpoint(), run, end.seconds or run.ended - run.started)


def _ask(run: Run, jobs: Jobs) -> None:
    """After a first Ctrl-C: detach, unless a second one comes; then stop the job."""
    say(f"\n{run.id} goes on on the cluster. Ctrl-C again within {GRACE:.0f} s stops it.")
    try:
        time.sleep(GRACE)
    except KeyboardInterrupt:
        say("stopping")
        jobs.stop(run.job)
        return
    say(f"detached; `raypath runs --follow {run.id}` attaches again")
    raise SystemExit(130)


def say(text: str) -> None:
    """Tell the user what is no result."""
    print(text, file=sys.stderr, flush=True)


def watch(home: Path, run: Run, tail: Tail, console: Console) -> End:
    """Draw a run until it ends. KeyboardInterrupt leaves it running."""
    picture, said = Picture(home, run), deque[str](maxlen=200)
    tail.start()
    try:
        with view_for(home, console) as view:
            while _next(tail, picture, said, view):
                pass
            if picture.end is None and tail.status in ENDED:
                picture.close({"SUCCEEDED": "done", "FAILED": "failed", "STOPPED": "stopped"}[tail.status])
            view.update(run)
    finally:
        tail.close()
    (home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "logs" / f"{run.id}.log").write_text("\n".join(said), encoding="utf-8")
    if tail.error is not None and picture.end is None:
        raise tail.error
    return picture.end or tail.died(said)


def _next(tail: Tail, picture: Picture, said: deque[str], view: LiveView | PlainView) -> bool:
    """Take in what has come; False at the end."""
    try:
        line = tail.lines.get(timeout=0.2)
    except queue.Empty:
        view.update(picture.run)
        return True
    if line is None:
        return False
    if isinstance(line, Note):
        view.console.print(line, markup=False, highlight=False, soft_wrap=True)
    elif not picture.take(line):
        said.append(line)
    view.update(picture.run)
    return True
