"""What a home folder keeps about its local services, readable by its owner alone.

services.json   what runs, and the ports to use again       logs/    ray.log, mlflow.log, and the ones before
services.lock   one `up` or `down` at a time                mlflow/  mlflow.db, artifacts
ray.token       Ray's password                              spill/   objects that found no room in memory
"""

from __future__ import annotations

import os
import secrets
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError

from raypath.components.core import files as durable
from raypath.components.core.errors import PlatformError, UserError
from raypath.components.core.files import write_atomically
from raypath.deploy.local import haproxy as ingress
from raypath.deploy.local.processes import Process

ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray turns 127.0.0.1 into the address of the network card
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # else every report of a training waits 2 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # else a relative finetune.base is looked for where a trial writes
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what a later Ray does by itself, and this one warns about
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # else a call to a dead server blocks for 4 minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
ONE_MACHINE = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",)
"""Those of them that a cluster of several machines does without."""
_LONGEST = 35
"""Bytes of a scratch folder: Ray's sockets below it must stay within the 103 that macOS allows (Linux: 107)."""


class Services(BaseModel, frozen=True, extra="forbid"):
    """services.json. The ports stay when the services are stopped."""

    ray: Process | None = None
    mlflow: Process | None = None
    ports: dict[str, int] = {}
    outside: str = ""
    """Where other machines may ask the endpoint, and the certificate for it, as HAProxy wants them."""

    @property
    def public(self) -> str:
        """The endpoint's address for other machines; "" where there is none."""
        return f"https://{self.outside.split()[0]}" if self.outside else ""

    def each(self) -> list[tuple[str, Process | None]]:
        """By name."""
        return [("ray", self.ray), ("mlflow", self.mlflow)]


def read(home: Path) -> Services:
    """What is remembered; nothing where nothing was ever started."""
    file = home / "services.json"
    try:
        return Services.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Services()
    except ValidationError as error:
        fix = "end what `ps -ef | grep raypath.deploy.local` finds, then delete the file"
        raise PlatformError(f"{file} is damaged ({error.error_count()} faults)", fix=fix) from error


def write(home: Path, services: Services) -> None:
    """Replace it whole: a reader never sees half of it."""
    write_atomically(home / "services.json", services.model_dump_json(indent=2))


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """One `up` or `down` at a time; the lock falls with the process that holds it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(durable.locked(home / "services.lock"))
        except OSError as error:
            raise UserError(f"cannot write to {home}: {error.strerror}", fix="choose a home of your own") from error
        yield


def environment(home: Path) -> dict[str, str]:
    """What a process needs in its environment to reach the services of this home."""
    home = home.resolve()
    variables = {**ALWAYS, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home / "ray.token")}
    hosts = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy", "")).split(",")
    direct = ",".join(filter(None, dict.fromkeys([*hosts, "127.0.0.1", "localhost"])))
    variables |= {"NO_PROXY": direct, "no_proxy": direct}
    services = read(home)
    if services.mlflow:
        variables["MLFLOW_TRACKING_URI"] = services.mlflow.address
    variables |= ingress.environment(services.ports, scratch(home) / "ha")
    return variables


def token(home: Path) -> Path:
    """The file with Ray's password, 256 bits, made when there is none."""
    file = home / "ray.token"
    if not file.exists():
        write_atomically(file, secrets.token_hex(32))
    return file


def scratch(home: Path) -> Path:
    """Where Ray's sockets and temporary files lie: a short path, since that of a socket is limited."""
    name = f"raypath-{os.getuid()}-{zlib.crc32(str(home.resolve()).encode()):08x}"
    first = Path(tempfile.gettempdir(), name)
    return first if len(os.fsencode(first)) <= _LONGEST else Path("/tmp", name)


def make_private(folder: Path) -> Path:
    """Make a folder that is ours alone; anyone may have put something of that name into /tmp before us."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PlatformError(f"{folder} belongs to somebody else or is open to others", fix="remove it")
    return folder
