"""State of the local services in a home folder, readable by its owner only.

services.json   running services and their ports            logs/    ray.log, mlflow.log, and the previous ones
services.lock   held by `up` and `down`                     mlflow/  mlflow.db, artifacts
ray.token       Ray's authentication token                  spill/   Ray objects that did not fit in memory
signing/        key that signs registered models, and the public keys that are trusted
mlflow.token    token of the MLflow server
"""

from __future__ import annotations

import os
import secrets
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from raypath.components.core import files as durable
from raypath.components.core.errors import PlatformError, UserError
from raypath.components.core.files import write_atomically
from raypath.components.serving.middleware.edge import CALLBACK
from raypath.components.tracking import login
from raypath.components.tracking.limits import MLFLOW_LIMITS
from raypath.deploy.local import haproxy
from raypath.deploy.local.processes import Process
from raypath.deploy.local.tls import project
from raypath.deploy.store.home_format import FORMAT

ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray replaces 127.0.0.1 by the address of the network interface
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # else every `ray.train.report` takes 2 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # else trials run in a folder of their own, where relative paths mean other files
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else under `uv run` Ray packs and uploads the current folder
    **CALLBACK,
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # default of later Ray versions; this one warns
    **MLFLOW_LIMITS,
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
HEAD = "head"
"""Name of the certificate of a home's Ray head."""
ONE_MACHINE = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",)
"""Variables of ALWAYS that must not be set on a cluster of several machines."""
_LONGEST = 35
"""Maximum length of a scratch folder's path in bytes: macOS limits socket paths to 103 bytes, Linux to 107."""


class Services(BaseModel, frozen=True, extra="forbid", validate_by_name=True):
    """Contents of services.json. Ports are kept when services are stopped."""

    format: int = 1
    """Format of the home that started the services; 1 where the file does not say."""

    ray: Process | None = None
    mlflow: Process | None = None
    ports: dict[str, int] = {}
    public_bind: str = Field("", validation_alias=AliasChoices("public_bind", "outside"))
    """Public listener and certificate of the endpoints, in the syntax of HAProxy's `bind`."""
    ray_tls: bool = False
    """Ray's processes speak TLS, both sides with a certificate of the project's authority for Ray's nodes."""

    @property
    def public(self) -> str:
        """URL of the endpoints for other machines; "" when there is no public listener."""
        return f"https://{self.public_bind.split()[0]}" if self.public_bind else ""

    def each(self) -> list[tuple[str, Process | None]]:
        """Return the services with their names."""
        return [("ray", self.ray), ("mlflow", self.mlflow)]


def read(home: Path) -> Services:
    """Read the stored state; empty when nothing was ever started. Raises PlatformError for a corrupt file."""
    file = home / "services.json"
    try:
        return Services.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Services()
    except NotADirectoryError:
        raise UserError(f"{home} is not a folder", fix="set RAYPATH_HOME to a folder") from None
    except ValidationError as error:
        fix = "stop the processes that `ps -ef | grep raypath.deploy.local` lists, then delete the file"
        raise PlatformError(f"{file} is corrupt ({error.error_count()} errors)", fix=fix) from error


def write(home: Path, services: Services) -> None:
    """Replace the file atomically."""
    stamped = services.model_copy(update={"format": FORMAT})
    write_atomically(home / "services.json", stamped.model_dump_json(indent=2))


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the lock that serializes `up` and `down`; it is released when the process ends."""
    with ExitStack() as stack:
        try:
            stack.enter_context(durable.locked(home / "services.lock"))
        except OSError as error:
            raise UserError(f"cannot write to {home}: {error.strerror}", fix="set RAYPATH_HOME to a folder") from error
        yield


def environment(home: Path) -> dict[str, str]:
    """Return the environment variables with which a process reaches the services of this home."""
    home = home.resolve()
    variables = {**ALWAYS, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home / "ray.token")}
    hosts = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy", "")).split(",")
    direct = ",".join(filter(None, dict.fromkeys([*hosts, "127.0.0.1", "localhost"])))
    variables |= {"NO_PROXY": direct, "no_proxy": direct}
    services = read(home)
    if services.mlflow:
        variables["MLFLOW_TRACKING_URI"] = services.mlflow.address
        if secret := mlflow_secret(home):
            variables |= login.variables(secret)
    variables |= haproxy.environment(services.ports, scratch(home) / "ha")
    return variables | (project.node_environment(home, HEAD) if services.ray_tls else {})


def token(home: Path) -> Path:
    """Return the file of Ray's authentication token (256 bits), which is created when missing."""
    file = home / "ray.token"
    if not file.exists():
        write_atomically(file, secrets.token_hex(32))
    return file


def mlflow_token(home: Path) -> Path:
    """Return the file of the MLflow server's token (256 bits), which is created when missing."""
    file = home / "mlflow.token"
    if not file.exists():
        write_atomically(file, secrets.token_hex(32))
    return file


def mlflow_secret(home: Path) -> str:
    """Return the token of the MLflow server, "" where no service was started yet."""
    file = home / "mlflow.token"
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""


def scratch(home: Path) -> Path:
    """Return the folder of Ray's sockets and temporary files; a short path, since socket paths are limited."""
    name = f"raypath-{os.getuid()}-{zlib.crc32(str(home.resolve()).encode()):08x}"
    first = Path(tempfile.gettempdir(), name)
    return first if len(os.fsencode(first)) <= _LONGEST else Path("/tmp", name)  # nosec


def make_private(folder: Path) -> Path:
    """Create a folder that only this user can access. Raises PlatformError when another user made it before."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PlatformError(f"{folder} belongs to somebody else or is open to others", fix="remove it")
    return folder
