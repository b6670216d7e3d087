"""Put the Serve application up, tell it what to hold, and ask whether it answers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from raypath.components.core.errors import PlatformError, RaypathError, Unavailable, UserError
from raypath.components.core.files import write_atomically

if TYPE_CHECKING:
    from raypath.components.serving.replica.model_manager import Plan
    from raypath.components.serving.spec import Spec

DEFAULT_URL = "http://127.0.0.1:8000"
STALE = 5.0
"""Seconds after which what answers at an address is this deployment, not one before."""
_SPECS = b"raypath-specs"
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
    from raypath.components.registry.aliases import champion_before
    from raypath.components.registry.client import CHAMPION, held_by, source_of
    from raypath.components.serving.control import rollout
    from raypath.components.serving.replica.model_manager import Plan, Wanted

    def behind(name: str, alias: str) -> Wanted | None:
        found = held_by(spec.tracking, name, alias) if alias else None
        same = found is None or (name, found[0]) == (spec.name, version)
        return None if same or found is None else Wanted(name=name, version=found[0], source=found[1])

    alias, _, percent = spec.canary.partition(":")

    def numbered(number: int) -> Wanted:
        return Wanted(name=spec.name, version=number, source=source_of(spec.tracking, spec.name, number))

    main = numbered(version)
    now = next((state.versions.get(spec.name, 0) for state in rollout.states(spec.name)), 0)
    before = now or champion_before(spec.tracking, spec.name, version)
    return Plan(
        main=main,
        before=numbered(before) if before not in (0, version) else None,
        canary=behind(spec.name, alias),
        percent=float(percent or 0),
        shadow=behind(spec.name, spec.shadow),
        also=tuple(filter(None, (behind(name, CHAMPION) for name in spec.also))),
        # It differs each time, so that asking again for a version that could not be loaded tries again.
        asked=time.time(),
    )


def deploy(spec: Spec, version: int) -> float:
    """Deploy or update the application `spec.name`; returns before it answers, with the time of its Plan.

    Where only the version differs from what runs, the replicas swap it in place; otherwise new ones come up beside
    the old ones first. Raises UserError when the route belongs to another application.
    """
    from ray import serve
    from ray.experimental import internal_kv
    from ray.serve.exceptions import RayServeException

    from raypath.components.serving.control.ray_options import code_version
    from raypath.components.serving.replica import deployment as app

    service: Any = app.Service
    plan = plan_of(spec, version)
    most = int(spec.options["max_ongoing_requests"])
    tell_front(spec.name, most)
    # Without a version of its own Serve would take every deployment for new code and replace the replicas. It does so
    # for another limit: only with other replicas HAProxy's configuration is made anew.
    deployment = service.options(version=f"{code_version()}-{most}", _internal=True)
    deployment = deployment.options(name="model", user_config=plan.model_dump(), **spec.options)
    try:
        targets = [serve.RunTarget(deployment.bind(spec.model_dump()), name=spec.name, route_prefix=spec.route)]
        serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    except RayServeException as error:
        reason = str(getattr(error, "cause", None) or error).splitlines()[0]
        raise UserError(f"{spec.name} cannot be served at {spec.route} ({reason})", fix=_ROUTE) from None
    # Where a promotion finds it that is to wake no replica.
    internal_kv._internal_kv_put(spec.name.encode(), spec.model_dump_json().encode(), namespace=_SPECS)
    return plan.asked


def spec_of(application: str) -> Spec | None:
    """With which an application was deployed last; None for one that is not ours."""
    from ray.experimental import internal_kv

    from raypath.components.serving.spec import Spec

    found = internal_kv._internal_kv_get(application.encode(), namespace=_SPECS)
    return Spec.model_validate_json(found) if found else None


def tell_front(name: str, most: int) -> None:
    """Leave for HAProxy how many requests a replica of this application takes, where Ray runs one (haproxy.sh)."""
    config = Path(os.environ.get("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", ""))
    if config.name and config.parent.is_dir():
        write_atomically(config.with_name(f"{name}.ongoing"), f"{most}\n")


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


def holds(url: str, name: str) -> bool:
    """Whether the proxy at this address has an application for it, whose replicas it does not ask."""
    parts = urlsplit(url)
    routes = _ask(f"{parts.scheme}://{parts.netloc}/-/routes", None, 2.0) or {}
    return routes.get(parts.path or "/") == name


def await_follower(url: str, tracking: str, name: str, version: int, seconds: float, pause: float = 1.0) -> float:
    """Until an endpoint that follows the registry answers as this version; the seconds that it took.

    Raises PlatformError with the reason that the version is tagged with where a replica refused it, Unavailable after
    `seconds`.
    """
    began = time.monotonic()
    while True:
        there, passed = answers_as(url, name, version), time.monotonic() - began
        # Even where it answers: one replica may have taken what another refused.
        if told := _refusal(tracking, name, version):
            raise PlatformError(
                f"{name}: version {version} was refused: {told}", fix="the version before is in service"
            )
        if there:
            return passed
        if passed > seconds:
            what = f"{name} version {version} did not answer at {url} within {seconds:g} s"
            raise Unavailable(what, fix="is its RayService there? kubectl -n raypath get rayservices,pods")
        time.sleep(pause)


def _refusal(tracking: str, name: str, version: int) -> str:
    from raypath.components.registry import aliases as refused

    with contextlib.suppress(RaypathError):  # MLflow may be away for a moment
        return refused.refusal(tracking, name, version)
    return ""


def answers_as(url: str, name: str, version: int) -> bool:
    """Whether /healthz tells this model and version."""
    found = health(url) or {}
    return (found.get("name"), found.get("version")) == (name, version)


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


def check_failed(spec: Spec, passed: float) -> None:
    """Raise PlatformError when waiting for an application is in vain. passed: seconds since it was deployed."""
    from ray import serve

    name = spec.name
    state = serve.status().applications.get(name)
    if state is not None and state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        told = [state.message, *(d.message for d in state.deployments.values())]
        raise PlatformError(f"Ray Serve could not start {name}: {_reason(told)}", fix="look at the logs of Ray Serve")
    if passed > STALE and (found := health(spec.url)) is not None and found.get("name") != name:
        raise PlatformError(f"another service answers where {name} was to be", fix=_ROUTE)


def _reason(told: list[str]) -> str:
    """The line of a stack trace that says what went wrong."""
    lines = [line.strip() for text in told for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "Unavailable", "Exception"))]
    return ([*lines[:1], *errors] or ["no reason given"])[-1][:300]


def _taken(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False
