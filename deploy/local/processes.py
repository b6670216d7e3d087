"""Processes that outlive the one that started them: start them, know them again, stop them with all their children.

A process is known by its number and its start time, or by the mark it carries in its environment: numbers are given
out again, and start times move when the clock is set (a laptop that slept). Children inherit the mark, so it also finds
those that lost their parent or left the session.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    import psutil

MARK = "RAYPATH_SERVICE"


class Process(BaseModel, frozen=True, extra="forbid"):
    """A service that was started, as HOME/services.json remembers it."""

    pid: int = 0
    """0 until it is started."""
    create_time: float = 0.0
    """Seconds since 1970."""
    address: str
    """Ray: "127.0.0.1:PORT"; MLflow: "http://127.0.0.1:PORT"."""
    dashboard: str = ""
    """Ray's HTTP address, for jobs; empty without a dashboard."""
    log: Path
    serve_port: int = 0
    """A free port kept for Ray Serve's HTTP."""
    mark: str = ""
    """What it and its children carry in the environment variable RAYPATH_SERVICE."""


def spawn(module: str, args: Iterable[str], env: Mapping[str, str], log: Path) -> tuple[int, float]:
    """Run `python -m module args` in a session of its own, out of reach of our terminal; its number and start time.

    Not `subprocess`, which wants to wait for what it starts. `-P`: a folder called `deploy` in the working directory
    must not stand in for ours.
    """
    import psutil

    if log.exists():
        log.replace(log.with_name(f"{log.stem}.previous{log.suffix}"))
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", module, *args],
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    )
    return pid, psutil.Process(pid).create_time()


def find(service: Process) -> psutil.Process | None:
    """The living process of a service; never another that was given its number."""
    import psutil

    try:
        process = psutil.Process(service.pid)
        known = abs(process.create_time() - service.create_time) < 2 or _carries(process, service.mark)
    except psutil.NoSuchProcess:
        return None
    if known and lives(process):
        return process
    if known:
        with suppress(ChildProcessError):  # it ended, and may wait for us to take note
            os.waitpid(service.pid, os.WNOHANG)
    return None


def lives(process: psutil.Process) -> bool:
    """Whether it still runs; what has ended and waits for its parent to take note does not."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tree(service: Process) -> list[psutil.Process]:
    """The process of a service and everything it started, also what lost its parent or moved to another session."""
    import psutil

    leader, found = find(service), []
    if leader:
        with suppress(psutil.NoSuchProcess):
            found = [leader, *leader.children(recursive=True)]
    # While a session has members the system does not give its number out again.
    session = service.pid if leader or not psutil.pid_exists(service.pid) else 0
    others = (process for process in psutil.process_iter() if process not in found)
    return found + [process for process in others if _belongs(process, service.mark, session)]


def _belongs(process: psutil.Process, mark: str, session: int) -> bool:
    """By the mark, or by the session where a title (`ray::IDLE`) was written over the environment."""
    import psutil

    try:
        if process.uids().real != os.getuid() or not lives(process):
            return False
        if _carries(process, mark):
            return True
        return session > 0 and os.getsid(process.pid) == session and process.name().startswith("ray")
    except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
        return False


def _carries(process: psutil.Process, mark: str) -> bool:
    import psutil

    try:
        return bool(mark) and process.environ().get(MARK) == mark
    except psutil.AccessDenied:
        return False


def stop(service: Process, patience_s: float = 10) -> int:
    """End a service with all its children: ask, wait, then kill; how many processes there were."""
    asked = tree(service)
    _signal(asked, signal.SIGTERM)
    _await(asked, patience_s)
    for _ in range(20):  # with what was started while we asked
        left = tree(service)
        if not left:
            break
        _signal(left, signal.SIGKILL)
        _await(left, 1)
    return len(asked)


def _await(processes: list[psutil.Process], timeout_s: float) -> None:
    """Wait until none of them runs. Not `psutil.wait_procs`: where nobody collects the dead, it waits on."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and any(lives(process) for process in processes):
        time.sleep(0.02)


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    import psutil

    for process in processes:
        try:
            process.send_signal(number)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def listens(process: psutil.Process, port: int) -> bool:
    """Whether this very process accepts connections on the port: another's answer is no sign of ours."""
    import psutil

    try:
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp"))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def memory_mib(processes: Iterable[psutil.Process]) -> int:
    """What they take together; shared pages count once where the system can tell (Linux)."""
    return round(sum(_memory(process) for process in processes) / 2**20)


def _memory(process: psutil.Process) -> int:
    import psutil

    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.uss))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
