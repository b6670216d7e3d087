"""What `raypath status` tells of the endpoints: replicas, versions, requests, and why a version is not in service.

Serve is asked first, through Ray, which wakes no replica of an endpoint that has none while nobody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.errors import RaypathError
from raypath.deploy.execution.run_history import load_runs
from raypath.deploy.local import services as local

if TYPE_CHECKING:
    from raypath.components.serving.replica.status import State


def endpoints(home: Path) -> list[str]:
    """Lines on the endpoints that this home's runs have made and that are in service."""
    if local.status(home)[0].state != "up":
        return []
    made = [s.artifact for run in load_runs(home) for s in run.steps if s.artifact and "url" in s.artifact]
    names = {artifact["url"]: artifact["name"] for artifact in made}
    return [line for url, name in names.items() for line in _endpoint(home, url, name)]


def _endpoint(home: Path, url: str, name: str) -> list[str]:
    from raypath.components.serving.control import deployer as deploy
    from raypath.components.serving.control import rollout

    try:
        local.connect(home)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        known = deploy.running() and rollout.known(name)
    except RaypathError:
        known = False
    if known:
        return described(url, name, rollout.running(name), rollout.states(name))
    # Perhaps one that another Ray serves, such as a RayService.
    found = deploy.health(url)
    return [_line(url, f"{found['name']} version {found['version']}", found["status"])] if found else []


def described(url: str, name: str, replicas: int, states: Sequence[State]) -> list[str]:
    """An endpoint with its replicas, what is wrong with it, its canary and its shadow."""
    if not replicas:
        return [_line(url, name, "no replica now, the next request starts one")]
    versions = sorted({state.versions[name] for state in states if name in state.versions})
    what = f"{name} version {' and '.join(map(str, versions)) or 'unknown'}"
    rate = sum(state.requests for state in states)
    count = f"{replicas} replica{'s' if replicas > 1 else ''}"
    lines = [_line(url, what, f"{count}, {rate:.1f} requests a second")]
    told = [(role, fault.told()) for state in states for role, fault in state.faults.items()]
    told += [(role, text) for state in states for role in ("canary", "shadow") if (text := getattr(state, role))]
    return lines + [f"  {'status' if role == 'main' else role:<12} {text}" for role, text in dict.fromkeys(told)]


def _line(url: str, what: str, how: str) -> str:
    return f"{'endpoint':<8} {'up':<5} {url:<26} {what}, {how}"
