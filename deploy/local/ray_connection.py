"""Connection of this process to the Ray head of a home. Ray allows one connection a process, hence one `connection`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from raypath.components.core.errors import Unavailable, UserError
from raypath.components.tracking import http
from raypath.deploy.local import processes
from raypath.deploy.local.processes import Process
from raypath.deploy.local.services import check_no_old_services, wait_ready
from raypath.deploy.local.state import environment, make_private, read, scratch

_TRACKING = tuple(f"MLFLOW_TRACKING_{name}" for name in ("URI", "TOKEN", "USERNAME", "PASSWORD"))

_RESTART = "run `raypath down`, then `raypath up`"


class RayConnection:
    """Owner of this process's connection to Ray."""

    def __init__(self) -> None:
        self._service: Process | None = None
        self._tracking: dict[str, str] = {}
        self._lock = threading.Lock()

    def connect(self, home: Path) -> None:
        """Make this process a driver of the home's Ray head; reconnects when the head was restarted.

        Raises Unavailable when no head runs, UserError when an earlier Raypath started it or when the process is
        connected to another Ray.
        """
        with self._lock:
            self._connect(home.resolve())

    def _connect(self, home: Path) -> None:
        service = read(home).ray
        if service is None or processes.find(service) is None:
            raise Unavailable(f"the Ray head of {home} is not running", fix="start it with `raypath up`")
        check_no_old_services(home)
        wait_ready(home, mlflow=False)
        os.environ.update(self._environment(home))
        import ray

        if ray.is_initialized():
            current = ray.get_runtime_context().gcs_address
            if current == service.address and self._service in (None, service):
                return
            if self._service is None or current != self._service.address:
                raise UserError("this process is connected to another Ray", fix="call ray.shutdown() first")
            ray.shutdown()  # the connection is to a head that died
        try:
            http.check_listener(f"http://{service.address}")
        except ConnectionError as error:
            raise Unavailable(f"the Ray head of {home} is not running: {error}", fix=_RESTART) from None
        _init_ray(service.address, scratch(home))
        self._service = service

    def _environment(self, home: Path) -> dict[str, str]:
        """Return the variables of this home; those of MLflow only where the user has not set another server."""
        variables = environment(home)
        tracking = {name: value for name, value in variables.items() if name in _TRACKING}
        others = {name: value for name, value in variables.items() if not name.startswith("MLFLOW_TRACKING_")}
        if any(
            os.environ.get(name) not in (None, "", self._tracking.get(name), tracking.get(name)) for name in _TRACKING
        ):
            return others
        self._tracking = tracking
        return others | tracking


def _init_ray(address: str, folder: Path) -> None:
    """Call `ray.init` without output, with this process's module search path for the workers.

    `_py_driver_sys_path` and not PYTHONPATH in a runtime environment, for which Ray would start workers of a second
    kind beside those it keeps ready: 1 s more for each driver.
    """
    import ray
    from ray.job_config import JobConfig

    # Ray caches environment variables and the first token that it read.
    constants: Any = import_module("ray._private.ray_constants")
    constants.ENABLE_RAY_CLUSTER = False
    constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    core = import_module("ray._raylet")
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()
    # Workers insert each path at the front, so the last one is searched first. The whole path is given, so that the
    # order is that of this process: what is installed stays in front of the user's folder.
    job = JobConfig(_py_driver_sys_path=[path for path in reversed(sys.path) if path])
    # Ray appends the current folder, which workers would search first of all.
    with contextlib.chdir(make_private(folder)):
        ray.init(address, namespace="raypath", job_config=job, log_to_driver=False, logging_level=logging.ERROR)


@contextlib.contextmanager
def quiet_serve() -> Iterator[None]:
    """Suppress log lines of Ray Serve below WARNING meanwhile. Serve sets its level when it is imported."""
    import_module("ray.serve")
    logger = logging.getLogger("ray.serve")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


connection = RayConnection()
"""The connection of this process."""
