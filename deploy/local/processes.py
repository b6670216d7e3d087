"""Background processes: start, identify and stop them with all their children.

A process is identified by its id and start time, or by a marker in its environment: process ids are reused, and start
times shift when the clock is set. Children inherit the marker, which also finds those that were reparented or left the
session.
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
    """A started service, as stored in HOME/services.json."""

    pid: int = 0
    """Process id; 0 until it is started."""
    create_time: float = 0.0
    """Unix time, seconds."""
    address: str
    """Ray: "127.0.0.1:PORT"; MLflow: "http://127.0.0.1:PORT"."""
    dashboard: str = ""
    """Ray's HTTP address, for jobs; empty without a dashboard."""
    log: Path
    serve_port: int = 0
    """Port reserved for Ray Serve's HTTP proxy."""
    mark: str = ""
    """Value of the environment variable RAYPATH_SERVICE in the process and its children."""


def spawn(module: str, args: Iterable[str], env: Mapping[str, str], log: Path) -> tuple[int, float]:
    """Run `python -m module args` in a new session, detached from the terminal. Returns its id and start time.

    `posix_spawn` and not `subprocess`, which warns about children that it does not wait for. `-P` keeps modules in the
    current folder from shadowing installed ones.
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
    """Return the running process of a service; never another process with the same id."""
    import psutil

    try:
        process = psutil.Process(service.pid)
        known = abs(process.create_time() - service.create_time) < 2 or _carries(process, service.mark)
    except psutil.NoSuchProcess:
        return None
    if known and lives(process):
        return process
    if known:
        with suppress(ChildProcessError):  # it has ended and may be our zombie
            os.waitpid(service.pid, os.WNOHANG)
    return None


def lives(process: psutil.Process) -> bool:
    """Return True while a process runs; zombies have ended."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tree(service: Process) -> list[psutil.Process]:
    """Return a service's process with all descendants, including reparented ones and those in other sessions."""
    import psutil

    leader, found = find(service), []
    if leader:
        with suppress(psutil.NoSuchProcess):
            found = [leader, *leader.children(recursive=True)]
    # The id of a session is not reused while it has members.
    session = service.pid if leader or not psutil.pid_exists(service.pid) else 0
    others = (process for process in psutil.process_iter() if process not in found)
    return found + [process for process in others if _belongs(process, service.mark, session)]


def _belongs(process: psutil.Process, mark: str, session: int) -> bool:
    """Match the marker, or the session where a process title (`ray::IDLE`) has overwritten the environment."""
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


def stop(service: Process, grace_s: float = 10) -> int:
    """Stop a service with all its children: SIGTERM, wait, SIGKILL. Returns the number of processes."""
    running = tree(service)
    _signal(running, signal.SIGTERM)
    _await(running, grace_s)
    for _ in range(20):  # including processes started meanwhile
        left = tree(service)
        if not left:
            break
        _signal(left, signal.SIGKILL)
        _await(left, 1)
    return len(running)


def _await(processes: list[psutil.Process], timeout_s: float) -> None:
    """Wait until none of the processes runs. `psutil.wait_procs` would also wait for zombies that nobody reaps."""
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
    """Return True when this process itself listens on the port; another program may have taken it."""
    import psutil

    try:
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp"))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def memory_mib(processes: Iterable[psutil.Process]) -> int:
    """Return the memory of the processes together; shared pages count once on Linux."""
    return round(sum(_memory(process) for process in processes) / 2**20)


def _memory(process: psutil.Process) -> int:
    import psutil

    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.uss))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
