"""The local services of a home folder: a Ray head and an MLflow server, on this machine and for it alone.

Both listen on 127.0.0.1 and nowhere else. Ray asks for the home's token; MLflow has no login, so other users of the
machine can reach it. They live on when whoever started them dies, and end with `down`. What a home remembers about
them is in `deploy.services`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from components.core.errors import PlatformError, Unavailable, UserError
from deploy import ports, processes, ray_head
from deploy.processes import Process
from deploy.services import Services, environment, locked, make_private, read, scratch, token, write

if TYPE_CHECKING:
    import psutil

__all__ = [
    "Process", "ServiceStatus", "Services", "connect", "down", "environment", "read", "status", "up", "wait_ready",
]  # fmt: skip

_STORE_BYTES = 2 << 30
"""Most of Ray's object store; a fifth of the memory on a machine of less than 10 GiB."""
_connected: Process | None = None


class ServiceStatus(BaseModel, frozen=True, extra="forbid"):
    """One line of `raypath status`."""

    name: str
    state: Literal["up", "down", "died"]
    address: str = ""
    pid: int = 0
    since: datetime | None = None
    memory_mib: int = 0
    """Of the process and all its children, in MiB."""
    log: Path | None = None


def up(
    home: Path, *, ray: bool = True, mlflow: bool = True, wait: bool = True, dashboard: bool = True
) -> Services:
    """Start what is asked for and not alive, both at the same time; a second call changes nothing.

    `wait=False` does not wait for MLflow, whose address is known at once. Without `dashboard` Ray takes no jobs, is
    ready 2 s sooner and needs 200 MiB less; a head that is already up stays as it is.
    """
    home = home.resolve()
    with locked(home):
        if mlflow and not _alive(read(home).mlflow):
            _start_mlflow(home)
        if ray and not _alive(read(home).ray):
            _start_ray(home, dashboard)
    wait_ready(home, ray=ray, mlflow=mlflow and wait)
    return read(home)


def wait_ready(home: Path, *, ray: bool = True, mlflow: bool = True, timeout_s: float = 90) -> None:
    """Wait until what was started answers; an error when it ends first, or takes longer than `timeout_s` seconds."""
    home, deadline = home.resolve(), time.monotonic() + timeout_s
    services = read(home)
    if ray and services.ray:
        # Ray writes this file when everything is started.
        mark = scratch(home) / "ray" / "ray_current_cluster"
        _wait("Ray", services.ray, lambda _: mark.exists(), deadline)
    if mlflow and services.mlflow:
        port = services.ports["mlflow"]
        _wait("MLflow", services.mlflow, lambda process: processes.listens(process, port), deadline)


def down(home: Path) -> list[str]:
    """Stop what `up` started here, with all its children, and nothing else; one line for each service."""
    home = home.resolve()
    if not (home / "services.json").exists():
        return []
    with locked(home):
        services = read(home)
        stopped = [_stop(name, service) for name, service in services.each() if service]
        write(home, Services(ports=services.ports))
        shutil.rmtree(scratch(home), ignore_errors=True)
        shutil.rmtree(home / "spill", ignore_errors=True)
    return stopped


def status(home: Path) -> list[ServiceStatus]:
    """What runs, what ended without being asked to, and what is stopped."""
    return [_status(name, service) for name, service in read(home.resolve()).each()]


def connect(home: Path) -> None:
    """Make this process a driver of the home's Ray head; its workers import what this process can import."""
    global _connected
    service = read(home.resolve()).ray
    if service is None or not _alive(service):
        raise Unavailable(f"the Ray head of {home} is not running", fix="start it with `raypath up`")
    wait_ready(home, mlflow=False)
    os.environ.update(environment(home))
    import ray

    if ray.is_initialized():
        if _connected == service:
            return
        if _connected is None:
            raise UserError("this process is connected to another Ray", fix="call ray.shutdown() first")
        ray.shutdown()
    _attach(service.address)
    _connected = service


def _attach(address: str) -> None:
    """`ray.init`, quietly, with our search path.

    `_py_driver_sys_path` and not PYTHONPATH in a runtime environment, for which Ray would start workers of a second
    kind beside those it keeps ready: 1 s more for each driver.
    """
    import logging

    import ray
    from ray._raylet import AuthenticationTokenLoader, Config
    from ray.job_config import JobConfig

    # Ray keeps what the environment said when it was imported, and the first token that it read.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    paths = [path for path in sys.path if path and not path.startswith((sys.prefix, sys.base_prefix))]
    job = JobConfig(_py_driver_sys_path=paths[::-1])  # workers put each in front of the one before
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    ray.init(address=address, namespace="raypath", job_config=job, **quiet)


def _start_ray(home: Path, dashboard: bool) -> None:
    import psutil

    services = _swept(home, "ray")
    folder = make_private(scratch(home))
    shutil.rmtree(folder / "ray", ignore_errors=True)
    token(home)
    chosen = {name: ports.choose(home, services.ports, name) for name in ports.RAY}
    http = f"http://127.0.0.1:{chosen['dashboard']}" if dashboard else ""
    more = {"dashboard": http, "serve_port": chosen["serve"]}
    store = min(_STORE_BYTES, psutil.virtual_memory().total // 5)
    args = ray_head.arguments(chosen, folder / "ray", home / "spill", dashboard, store)
    address = f"127.0.0.1:{chosen['ray']}"
    env = {**ray_head.ENVIRONMENT, "DASHBOARD_METRIC_PORT": str(chosen["metrics"])}
    _start(home, "ray", Services(**{**dict(services), "ports": services.ports | chosen}), ...)
