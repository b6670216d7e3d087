"""Local services of a home: a Ray head and an MLflow server on the loopback interface.

Only replicas of Ray Serve listen on every interface, which Ray 2.60 does not let one change; they require the token
before they read a request. Ray and MLflow each require a token of the home. Services outlive the process that started
them and end with `down`. Their state is stored by `raypath.deploy.local.state`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

import raypath
from raypath.components.core.errors import PlatformError, Unavailable, UserError
from raypath.components.encryption.vault import is_encrypted
from raypath.components.encryption.working_folder import base_folder, clean
from raypath.components.models.process import total_memory
from raypath.components.registry.signing.keys import ensure_key
from raypath.components.tracking import login
from raypath.components.tracking.server.codes import link
from raypath.deploy.local import haproxy, mlflow_server, ports, processes, ray_head
from raypath.deploy.local.processes import Process
from raypath.deploy.local.state import (
    HEAD,
    Services,
    environment,
    locked,
    make_private,
    mlflow_secret,
    mlflow_token,
    read,
    scratch,
    token,
    write,
)
from raypath.deploy.local.tls import project
from raypath.deploy.store.home_format import FORMAT, check_format

if TYPE_CHECKING:
    import psutil

_STORE_BYTES = 2 << 30
"""Maximum size of Ray's object store; a fifth of the memory on machines with less than 10 GiB."""
_ROOT = Path(raypath.__file__).parent.parent


class ServiceState(StrEnum):
    """State of a service."""

    UP = "up"
    DOWN = "down"
    DIED = "died"
    """It ended without `raypath down`."""


class ServiceStatus(BaseModel, frozen=True, extra="forbid"):
    """One line of `raypath status`."""

    name: str
    state: ServiceState
    address: str = ""
    pid: int = 0
    since: datetime | None = None
    memory_mib: int = 0
    """Memory of the process and all its children, in MiB."""
    log: Path | None = None


def up(
    home: Path,
    *,
    ray: bool = True,
    mlflow: bool = True,
    wait: bool = True,
    dashboard: bool = True,
    listener: haproxy.PublicListener | None = None,
    ray_tls: bool = False,
) -> Services:
    """Start the selected services that are not running, in parallel. Running services are left as they are.

    Args:
        wait: wait for MLflow, whose URL is known at once, as well as for Ray.
        dashboard: start Ray's dashboard, which jobs need; without it Ray is ready up to 3 s sooner and takes 200 MiB
            less.
        listener: public TLS listener of the endpoints. Raises UserError when Ray is running with another one.
        ray_tls: TLS between Ray's processes. Raises UserError when Ray is running without.
    """
    home = home.resolve()
    started = _start_missing(home, ray, mlflow, dashboard, listener, ray_tls)
    try:
        wait_ready(home, ray=ray, mlflow=mlflow and wait)
    except PlatformError:
        # One that was found running was about to end. One that was started here would end again.
        if any(not _alive(service) for name, service in read(home).each() if name in started):
            raise
        _start_missing(home, ray, mlflow, dashboard, listener, ray_tls)
        wait_ready(home, ray=ray, mlflow=mlflow and wait)
    services = read(home)
    if services.mlflow:
        login.remember(services.mlflow.address, mlflow_secret(home))
    return services


def _start_missing(
    home: Path, ray: bool, mlflow: bool, dashboard: bool, listener: haproxy.PublicListener | None, ray_tls: bool
) -> list[str]:
    """Start those of the wanted services that do not run; returns their names."""
    started = []
    with locked(home):
        check_format(home)
        check_no_old_services(home)
        ensure_key(home / "signing")
        if listener is not None and listener.bind() != read(home).public_bind:
            if _alive(read(home).ray):
                raise UserError(
                    "Ray is running with another --listen", fix="run `raypath down`, then the same command again"
                )
            write(home, read(home).model_copy(update={"public_bind": listener.bind()}))
        if ray_tls and not read(home).ray_tls:
            if _alive(read(home).ray):
                raise UserError("Ray is running without TLS", fix="run `raypath down`, then the same command again")
            write(home, read(home).model_copy(update={"ray_tls": True}))
        if ray and not _alive(read(home).ray):
            haproxy.check_open_files()
        if mlflow and not _alive(read(home).mlflow):
            _start_mlflow(home)
            started.append("mlflow")
        if ray and not _alive(read(home).ray):
            _start_ray(home, dashboard)
            started.append("ray")
    return started


def check_no_old_services(home: Path) -> None:
    """Raise UserError while services run that a Raypath of another home format has started, or one without a login."""
    services = read(home)
    if (services.format < FORMAT or not mlflow_secret(home)) and any(_alive(service) for _, service in services.each()):
        what = f"services of an earlier Raypath are running in {home}"
        raise UserError(what, fix="stop them with `raypath down`, then run the same command again")


def wait_ready(home: Path, *, ray: bool = True, mlflow: bool = True, timeout_s: float = 120) -> None:
    """Wait until the started services respond. Raises PlatformError when one ends, Unavailable after `timeout_s`."""
    home, deadline = home.resolve(), time.monotonic() + timeout_s
    services = read(home)
    if ray and services.ray:
        last = scratch(home) / "ray" / "ray_current_cluster"  # written by Ray once everything is started
        _wait("Ray", services.ray, lambda _: last.exists(), deadline)
    if mlflow and services.mlflow:
        port = services.ports["mlflow"]
        _wait("MLflow", services.mlflow, lambda process: processes.listens(process, port), deadline)


def down(home: Path) -> list[str]:
    """Stop the services of this home with all their child processes; returns one line for each service."""
    home = home.resolve()
    if not (home / "services.json").exists():
        return []
    with locked(home):
        services = read(home)
        stopped = [_stop(name, service) for name, service in services.each() if service]
        write(home, Services(ports=services.ports))
        shutil.rmtree(scratch(home), ignore_errors=True)
        shutil.rmtree(spill_folder(home), ignore_errors=True)
        if is_encrypted(home):
            clean(home)
    return stopped


def spill_folder(home: Path) -> Path:
    """Return the folder for Ray's objects that do not fit in its memory; in memory too for an encrypted home."""
    return base_folder(home) / "spill" if is_encrypted(home) else home / "spill"


def status(home: Path) -> list[ServiceStatus]:
    """Return the status of each service."""
    return [_status(name, service) for name, service in read(home.resolve()).each()]


def _start_ray(home: Path, dashboard: bool) -> None:
    chosen = _clear(home, "ray", ports.RAY)
    # Private first: below another user's link, the folder `ray` would be somebody's.
    folder = make_private(scratch(home))
    shutil.rmtree(folder / "ray", ignore_errors=True)
    token(home)
    mlflow_token(home)  # the workers of a head have the token of its start
    haproxy.prepare(make_private(folder / "ha"), read(home).public_bind, home / "access")
    if read(home).ray_tls:
        project.make_node(home, HEAD, project.default_hosts())
    store = min(_STORE_BYTES, total_memory() // 5)
    args = ray_head.arguments(chosen, folder / "ray", spill_folder(home), dashboard, store)
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
    args = [str(folder / "mlflow.db"), str(folder / "artifacts"), str(port), str(mlflow_token(home))]
    log, mark = home / "logs" / "mlflow.log", secrets.token_hex(8)
    service = Process(address=f"http://127.0.0.1:{port}", log=log, mark=mark)
    _start(home, "mlflow", service, "raypath.deploy.local.mlflow_server", args, mlflow_server.ENVIRONMENT)


def _clear(home: Path, name: str, wanted: Sequence[str]) -> dict[str, int]:
    """Stop what a service that died left running, and choose and store the ports of the next one."""
    services = read(home)
    if former := dict(services.each())[name]:
        processes.stop(former, grace_s=0)
    chosen = dict(services.ports)
    for port in wanted:
        chosen[port] = ports.choose(home, chosen, port)
    write(home, services.model_copy(update={name: None, "ports": chosen}))
    return chosen


def _start(home: Path, name: str, service: Process, module: str, args: list[str], extra: Mapping[str, str]) -> None:
    """Start a service. Its state is stored before it exists, so that `down` finds it after a crash at any moment."""
    (home / "logs").mkdir(mode=0o700, exist_ok=True)
    temporary = make_private(make_private(scratch(home)) / "tmp")
    search = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, **environment(home), **extra, processes.MARK: service.mark}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    # PYTHONSAFEPATH: else the processes that Ray's dashboard forks import modules from the current folder.
    env |= {"PATH": programs, "PYTHONPATH": search, "PYTHONSAFEPATH": "1", "TMPDIR": str(temporary)}
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
            raise Unavailable(f"{name} at {service.address} does not respond", fix=f"see {service.log}")
        time.sleep(0.05)
    raise PlatformError(f"{name} ended while it started: {_last_line(service.log)}", fix=f"see {service.log}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _stop(name: str, service: Process) -> str:
    alive = _alive(service)
    count = processes.stop(service)
    ended = f"{count} process{'' if count == 1 else 'es'}"
    return f"{name}: stopped, {ended}" if alive else f"{name}: had ended before, {ended} left over"


def _status(name: str, service: Process | None) -> ServiceStatus:
    if service is None:
        return ServiceStatus(name=name, state=ServiceState.DOWN)
    known = ServiceStatus(name=name, state=ServiceState.DIED, address=service.address, pid=service.pid, log=service.log)
    if not _alive(service):
        return known
    since = datetime.fromtimestamp(service.create_time, UTC).astimezone()
    memory = processes.memory_mib(processes.tree(service))
    return known.model_copy(update={"state": ServiceState.UP, "since": since, "memory_mib": memory})


def tracking_uri(home: Path) -> str:
    """Return the URL of this home's MLflow server, which is started when it is not running."""
    services = up(home, ray=False)
    assert services.mlflow is not None
    return services.mlflow.address


def login_url(home: Path) -> str:
    """Return a link that logs a browser in at this home's MLflow server, once, within ten minutes; "" without one."""
    server, secret = read(home).mlflow, mlflow_secret(home)
    return link(server.address, secret) if server and secret else ""
