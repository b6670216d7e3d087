"""What `raypath status` tells of the endpoints: replicas, versions, requests, and why a version is not in service.

Serve is asked first, through Ray, which wakes no replica of an endpoint that has none while nobody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.errors import RaypathError
from raypath.deploy.console.run_report import _headline, console
from raypath.deploy.execution.run_history import load_runs
from raypath.deploy.local import services as local
from raypath.deploy.local import state as services
from raypath.deploy.local.ray_connection import connection

if TYPE_CHECKING:
    from raypath.components.serving.replica.status import ReplicaStatus


def endpoints(home: Path) -> list[str]:
    """Lines on the endpoints that this home's runs have made and that are in service."""
    if local.status(home)[0].state != "up":
        return []
    made = [s.artifact for run in load_runs(home) for s in run.steps if s.artifact and "url" in s.artifact]
    names = {artifact["url"]: artifact["name"] for artifact in made}
    return [line for url, name in names.items() for line in _endpoint(home, url, name)]


def _endpoint(home: Path, url: str, name: str) -> list[str]:
    from raypath.components.serving.control import client, proxy
    from raypath.components.serving.replica import status

    try:
        connection.connect(home)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        known = proxy.is_running() and status.is_deployed(name)
    except RaypathError:
        known = False
    if known:
        return described(url, name, status.running_replicas(name), status.replica_statuses(name))
    # Perhaps one that another Ray serves, such as a RayService.
    found = client.health(url)
    return [_line(url, f"{found['name']} version {found['version']}", found["status"])] if found else []


def described(url: str, name: str, replicas: int, states: Sequence[ReplicaStatus]) -> list[str]:
    """An endpoint with its replicas, what is wrong with it, its canary and its shadow."""
    if not replicas:
        return [_line(url, name, "no replica now, the next request starts one")]
    versions = sorted({state.versions[name] for state in states if name in state.versions})
    what = f"{name} version {' and '.join(map(str, versions)) or 'unknown'}"
    rate = sum(state.requests for state in states)
    count = f"{replicas} replica{'s' if replicas > 1 else ''}"
    lines = [_line(url, what, f"{count}, {rate:.1f} requests a second")]
    told = [(role, fault.message()) for state in states for role, fault in state.faults.items()]
    told += [(role, text) for state in states for role in ("canary", "shadow") if (text := getattr(state, role))]
    return lines + [f"  {'status' if role == 'main' else role:<12} {text}" for role, text in dict.fromkeys(told)]


def _line(url: str, what: str, how: str) -> str:
    return f"{'endpoint':<8} {'up':<5} {url:<26} {what}, {how}"


def show_status(home: Path) -> None:
    """Services of this home, and what Ray Serve serves."""
    for service in local.status(home):
        since = f"since {service.since:%H:%M}" if service.since else ""
        memory = f"{service.memory_mib} MiB" if service.memory_mib else ""
        console.print(f"{service.name:<8} {service.state:<5} {service.address:<26} {since} {memory}", markup=False)
    if public := services.read(home).public:
        console.print(f"{'':<8} {'':<5} {public:<26} endpoints, for other machines", markup=False)
    for line in endpoints(home):
        console.print(line, markup=False)


def show_models(home: Path) -> None:
    """Registered models with versions, aliases and headline figures."""
    from raypath.components.registry.client import list_models
    from raypath.deploy.local.services import tracking_uri

    found = list_models(tracking_uri(home))
    if not found:
        console.print("no models yet; `raypath run text_classification` registers one")
    for model in found:
        figures = ", ".join(f"{k} {model.metrics[k]:.4f}" for k in _headline(model.metrics) if k in model.metrics)
        aliases = " ".join(f"@{alias}" for alias in model.aliases)
        console.print(f"{model.name:<20} {model.version:>4}  {aliases:<12} {figures}", markup=False)
