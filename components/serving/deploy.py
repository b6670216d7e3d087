"""Put the Serve application up, swap its model, and ask whether it answers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.core.errors import PlatformError, Unavailable, UserError

if TYPE_CHECKING:
    from components.serving.app import Spec
    from components.serving.versions import Plan

DEFAULT_URL = "http://127.0.0.1:8000"
STALE = 5.0
"""Seconds after which a complaint of /healthz is about this deployment, not about one before."""
_ROUTE = "set another one with -s serve.route=/..."
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def start(url: str, request_seconds: float) -> None:
    """Start Serve with its proxy at `url`, if none runs on this Ray. Raises PlatformError when the port is taken.

    A proxy on loopback runs on the head only; on another address on every node that has a replica.
    """
    from ray import serve

    if running():
        return
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    if _taken(host, port):
        raise PlatformError(
            f"port {port} on {host} is in use by another program", fix="stop it, or choose another port"
        )
    serve.start(
        proxy_location="HeadOnly" if host in LOOPBACK else "EveryNode",
        http_options={"host": host, "port": port, "request_timeout_s": request_seconds},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )


def running() -> bool:
    """Whether this Ray has a Serve controller."""
    import ray

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def plan_of(spec: Spec, version: int) -> Plan:
    """What replicas of `spec` are to hold with this main version; canary, shadow and other models by their aliases.

    An alias that nothing holds, or that this very version holds, is left out. Raises DataError for an unknown version.
    """
    from components.serving.registry import CHAMPION, held_by, source_of
    from components.serving.versions import Plan, Wanted

    def behind(name: str, alias: str) -> Wanted | None:
        found = held_by(spec.tracking, name, alias) if alias else None
        same = found is None or (name, found[0]) == (spec.name, version)
        return None if same or found is None else Wanted(name=name, version=found[0], source=found[1])

    alias, _, percent = spec.canary.partition(":")
    now = health(spec.url)
    before = int(now["version"]) if now and now.get("name") == spec.name else version
    main, old = (
        Wanted(name=spec.name, version=v, source=source_of(spec.tracking, spec.name, v)) for v in (version, before)
    )
    return Plan(
        main=main,
        before=None if before == version else old,
        canary=behind(spec.name, alias),
        percent=float(percent or 0),
        shadow=behind(spec.name, spec.shadow),
        also=tuple(filter(None, (behind(name, CHAMPION) for name in spec.also))),
        # It differs each time, so that asking again for a version that could not be loaded tries again.
        asked=time.time(),
    )


def deploy(spec: Spec, version: int) -> None:
    """Deploy or update the application `spec.name`; returns before it answers.

    Where only the version differs from what runs, the replicas swap it in place; otherwise new ones come up beside
    the old ones first. Raises UserError when the route belongs to another application.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from components.serving import app

    service: Any = app.Service
    config = plan_of(spec, version).model_dump()
    # Without a code version of its own Serve would take every deployment for new code and replace the replicas.
    deployment = service.options(version=_code_version(), _internal=True)
    deployment = deployment.options(name="model", user_config=config, **spec.options)
    try:
        targets = [serve.RunTarget(deployment.bind(spec.model_dump()), name=spec.name, route_prefix=spec.route)]
        serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    except RayServeException as error:
        reason = str(getattr(error, "cause", None) or error).splitlines()[0]
        raise UserError(f"{spec.name} cannot be served at {spec.route} ({reason})", fix=_ROUTE) from None


def free_route(base: str, name: str, wanted: str | None) -> str:
    """Where a model goes: where it was told to; else where it is, else / while that is free, else /NAME.

    Raises UserError when another model holds the route that was asked for. Serve has to run at `base`.
    """
    held = {app: route for route, app in (_ask(f"{base}/-/routes", None, 5.0) or {}).items()}
    route = wanted or held.get(name) or (f"/{name}" if "/" in held.values() else "/")
    holder = next((app for app, taken in held.items() if taken == route and app != name), None)
    if holder is not None:
        raise UserError(f"{name} cannot be served at {route}, where {holder} is", fix=_ROUTE)
    return route


def swap(name: str, version: int, seconds: float = 120.0) -> None:
    """Serve another version of a model that is in service, as it is served now; returns once it answers.

    A service that has the model among others is told too. Raises UserError when no such model is in service, and what
    `wait` raises. Ray has to be connected.
    """
    from ray import serve

    from components.serving import app

    running = list(serve.status().applications)
    specs = [app.Spec(**serve.get_app_handle(each).describe.remote().result(timeout_s=10.0)) for each in running]
    hosts = [spec for spec in specs if name == spec.name or name in spec.also]
    if not hosts:
        raise UserError(f"no model {name} is in service", fix="run a workflow that serves it")
    for spec in hosts:
        now = version if name == spec.name else int((health(spec.url) or {"version": 0})["version"])
        deploy(spec, now)
        wait(spec.url, spec.name, now, seconds)


def wait(url: str, name: str, version: int, seconds: float, pause: float = 0.1) -> None:
    """Until `url` answers as this version. Raises PlatformError with Serve's reason, Unavailable after `seconds`."""
    began = time.monotonic()
    while (found := health(url)) is None or (found.get("name"), found.get("version")) != (name, version):
        passed = time.monotonic() - began
        _check_failed(name, found, passed)
        if passed > seconds:
            what = f"{name} version {version} did not answer at {url} within {seconds:g} s"
            raise Unavailable(what, fix="look at `raypath status` and at the logs of Ray Serve")
        time.sleep(pause)


def await_follower(url: str, name: str, version: int, seconds: float, pause: float = 1.0) -> float:
    """Until an endpoint that follows the registry answers as this version; the seconds that it took.

    Raises PlatformError where it refuses the version, Unavailable after `seconds`.
    """
    began = time.monotonic()
    while (found := health(url)) is None or (found.get("name"), found.get("version")) != (name, version):
        passed = time.monotonic() - began
        told = str((found or {}).get("status", "ok"))
        if told.startswith(f"version {version} "):
            raise PlatformError(f"{name}: {told}", fix="the version before is still in service; `raypath rollback`")
        if passed > seconds:
            what = f"{name} version {version} did not answer at {url} within {seconds:g} s"
            raise Unavailable(what, fix="is its RayService there? kubectl -n raypath get rayservices,pods")
        time.sleep(pause)
    return time.monotonic() - began


def health(url: str, seconds: float = 2.0) -> dict[str, Any] | None:
    """What /healthz says; None when nothing or something else answers."""
    return _ask(f"{url}/healthz", None, seconds)


def predict(url: str, request: dict[str, Any], seconds: float, key: str = "") -> dict[str, Any] | None:
    """The answer to one request of the task, asked with this key; None when it failed."""
    return _ask(f"{url}/predict", json.dumps(request).encode(), seconds, key)


def check_open(address: str, access: str) -> None:
    """Raise UserError for an endpoint that other machines could ask without a key, or without TLS."""
    parts = urlsplit(address)
    if parts.hostname in LOOPBACK:
        return
    if not access:
        raise UserError(
            f"{address} is beyond this machine, and no key would be asked for", fix="leave serve.open unset"
        )
    if parts.scheme != "https":
        raise UserError(f"{address} is beyond this machine, and not https", fix="raypath up --listen ... --tls ...")


def _ask(address: str, body: bytes | None, seconds: float, key: str = "") -> dict[str, Any] | None:
    # Straight to the endpoint: a proxy for the outside world has no business with it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(address, body, headers)
    try:
        with opener.open(request, timeout=seconds) as reply:
            found = json.load(reply)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _check_failed(name: str, found: dict[str, Any] | None, passed: float) -> None:
    """Raise PlatformError when waiting is in vain."""
    from ray import serve

    if found is not None and found.get("name") != name and passed > STALE:
        raise PlatformError(f"another service answers where {name} was to be", fix=_ROUTE)
    if found is not None and found.get("status", "ok") != "ok" and passed > STALE:
        raise PlatformError(f"{name}: {found['status']}", fix="the version before is still in service")
    state = serve.status().applications.get(name)
    if state is not None and state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        told = [state.message, *(d.message for d in state.deployments.values())]
        raise PlatformError(f"Ray Serve could not start {name}: {_reason(told)}", fix="look at the logs of Ray Serve")


def _reason(told: list[str]) -> str:
    """The line of a stack trace that says what went wrong."""
    lines = [line.strip() for text in told for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "Unavailable", "Exception"))]
    return ([*lines[:1], *errors] or ["no reason given"])[-1][:300]


def _taken(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False


def _code_version() -> str:
    """Changes with the source that replicas run and with Ray."""
    import ray

    seen = hashlib.sha256(ray.__version__.encode())
    here = Path(__file__).parent
    for folder in (here, here.parent / "tasks", here.parent / "data"):
        for path in sorted(folder.glob("*.py")):
            seen.update(path.read_bytes())
    return seen.hexdigest()[:16]


def worker_environment() -> dict[str, str]:
    """Variables that a replica needs as this process has them: where our code and the cache are, where traces go.

    Ray shows them to whoever sees its dashboard, so those that may hold a password stay out (OTEL_*_HEADERS): they have
    to be set where Ray is started.
    """
    tracing = [name for name in os.environ if name.startswith("OTEL_") and not name.endswith("HEADERS")]
    return {name: os.environ[name] for name in ("PYTHONPATH", "RAYPATH_CACHE", *tracing) if name in os.environ}
