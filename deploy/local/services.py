"""The local services of a home folder: a Ray head and an MLflow server, on this machine and for it alone.

Both listen on 127.0.0.1 and nowhere else; only a replica of Ray Serve opens a port on every interface, which is fixed
in Ray 2.60 and asks for the token before it reads anything. Ray asks for the home's token; MLflow has no login, so
other users of the machine can reach it. The services live on when whoever started them dies, and end with `down`. What
a home remembers about them is in `raypath.deploy.local.state`.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

import raypath
from raypath.components.core.errors import PlatformError, Unavailable, UserError
from raypath.deploy.local import haproxy as ingress
from raypath.deploy.local import mlflow_server, ports, processes, ray_head
from raypath.deploy.local import services as local
from raypath.deploy.local.processes import Process
from raypath.deploy.local.state import Services, environment, locked, make_private, read, scratch, token, write

if TYPE_CHECKING:
    import psutil

__all__ = [
    "Process", "ServiceStatus", "Services", "connect", "down", "environment", "read", "status", "up", "wait_ready",
]  # fmt: skip

_STORE_BYTES = 2 << 30
"""Most of Ray's object store; a fifth of the memory on a machine of less than 10 GiB."""
_ROOT = Path(raypath.__file__).parent.parent
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
    home: Path,
    *,
    ray: bool = True,
    mlflow: bool = True,
    wait: bool = True,
    dashboard: bool = True,
    outside: ingress.Outside | None = None,
) -> Services:
    """Start what is asked for and not alive, both at the same time; a second call changes nothing.

    `wait=False` does not wait for MLflow, whose address is known at once. Without `dashboard` Ray takes no jobs, is
    ready up to 3 s sooner and needs 200 MiB less; a head that is already up stays as it is, and cannot be told to
    listen elsewhere (UserError).
    """
    home = home.resolve()
    with locked(home):
        if outside is not None and outside.line() != read(home).outside:
            if _alive(read(home).ray):
                raise UserError("Ray is up already, and listens elsewhere", fix="raypath down, then this line again")
            write(home, read(home).model_copy(update={"outside": outside.line()}))
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
        last = scratch(home) / "ray" / "ray_current_cluster"  # what Ray writes when everything is started
        _wait("Ray", services.ray, lambda _: last.exists(), deadline)
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
        current = ray.get_runtime_context().gcs_address
        if current == service.address and _connected in (None, service):
            return
        if _connected is None or current != _connected.address:
            raise UserError("this process is connected to another Ray", fix="call ray.shutdown() first")
        ray.shutdown()  # from a head that has died; this is the next one
    _attach(service.address)
    _connected = service


def _attach(address: str) -> None:
    """`ray.init`, quietly, with our search path.

    `_py_driver_sys_path` and not PYTHONPATH in a runtime environment, for which Ray would start workers of a second
    kind beside those it keeps ready: 1 s more for each driver.
    """
    from importlib import import_module

    import ray
    from ray.job_config import JobConfig

    # Ray keeps what the environment said when it was imported, and the first token that it read.
    constants: Any = import_module("ray._private.ray_constants")
    constants.ENABLE_RAY_CLUSTER = False
    core = import_module("ray._raylet")
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()
    installed = set(sysconfig.get_paths().values())
    paths = [path for path in reversed(sys.path) if path and path not in installed]
    job = JobConfig(_py_driver_sys_path=paths)  # workers put each in front of the one before
    ray.init(address, namespace="raypath", job_config=job, log_to_driver=False, logging_level=logging.WARNING)


def _start_ray(home: Path, dashboard: bool) -> None:
    import psutil

    chosen = _clear(home, "ray", ports.RAY)
    folder = scratch(home)
    shutil.rmtree(folder / "ray", ignore_errors=True)
    token(home)
    ingress.prepare(make_private(make_private(folder) / "ha"), read(home).outside)
    store = min(_STORE_BYTES, psutil.virtual_memory().total // 5)
    args = ray_head.arguments(chosen, folder / "ray", home / "spill", dashboard, store)
    service = Process(
        address=f"127.0.0.1:{chosen['ray']}",
        dashboard=f"http://127.0.0.1:{chosen['dashboard']}" if dashboard else "",
        log=home / "logs" / "ray.log",
        serve_port=chosen["serve"],
        mark=secrets.token_hex(8),
    )
    _start(home, "ray", service, "raypath.deploy.local.ray_head", args, ray_head.environment(chosen))


def _start_mlflow(home: Path) -> None:
    port = _clear(home, "mlflow", ports.MLFLOW)["mlflow"]
    folder = home / "mlflow"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "artifacts").mkdir(mode=0o700, exist_ok=True)
    args = [str(folder / "mlflow.db"), str(folder / "artifacts"), str(port)]
    log, mark = home / "logs" / "mlflow.log", secrets.token_hex(8)
    service = Process(address=f"http://127.0.0.1:{port}", log=log, mark=mark)
    _start(home, "mlflow", service, "raypath.deploy.local.mlflow_server", args, mlflow_server.ENVIRONMENT)


def _clear(home: Path, name: str, wanted: Sequence[str]) -> dict[str, int]:
    """End what a service that died left behind; the ports for the next one, which are remembered."""
    services = read(home)
    if former := dict(services.each())[name]:
        processes.stop(former, patience_s=0)
    chosen = dict(services.ports)
    for port in wanted:
        chosen[port] = ports.choose(home, chosen, port)
    write(home, services.model_copy(update={name: None, "ports": chosen}))
    return chosen


def _start(home: Path, name: str, service: Process, module: str, args: list[str], extra: Mapping[str, str]) -> None:
    """Remember the service before it exists: a kill at any moment leaves nothing that `down` cannot find."""
    (home / "logs").mkdir(mode=0o700, exist_ok=True)
    temporary = make_private(make_private(scratch(home)) / "tmp")
    search = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, **environment(home), **extra, processes.MARK: service.mark}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    env |= {"PATH": programs, "PYTHONPATH": search, "TMPDIR": str(temporary)}
    env.pop("RAY_ADDRESS", None)
    write(home, read(home).model_copy(update={name: service}))
    pid, started = processes.spawn(module, args, env, service.log)
    service = service.model_copy(update={"pid": pid, "create_time": started})
    write(home, read(home).model_copy(update={name: service}))


def _alive(service: Process | None) -> bool:
    return service is not None and processes.find(service) is not None


def _wait(name: str, service: Process, ready: Callable[[psutil.Process], bool], deadline: float) -> None:
    while process := processes.find(service):
        if ready(process):
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"{name} at {service.address} does not answer", fix=f"see {service.log}")
        time.sleep(0.05)
    raise PlatformError(f"{name} ended while it started: {_last_line(service.log)}", fix=f"see {service.log}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _stop(name: str, service: Process) -> str:
    alive = _alive(service)
    count = processes.stop(service)
    return f"{name}: stopped, {count} processes" if alive else f"{name}: had ended before, {count} processes left over"


def _status(name: str, service: Process | None) -> ServiceStatus:
    if service is None:
        return ServiceStatus(name=name, state="down")
    known = ServiceStatus(name=name, state="died", address=service.address, pid=service.pid, log=service.log)
    if not _alive(service):
        return known
    since = datetime.fromtimestamp(service.create_time, UTC).astimezone()
    memory = processes.memory_mib(processes.tree(service))
    return known.model_copy(update={"state": "up", "since": since, "memory_mib": memory})


def tracking_uri(home: Path) -> str:
    """The address of this home's MLflow server, which is brought up when it is not."""
    services = local.up(home, ray=False)
    assert services.mlflow is not None
    return services.mlflow.address
