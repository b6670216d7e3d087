"""Launcher for this machine: runs the graph with the local platform and shows the live view."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Artifact, Endpoint, Release
from raypath.components.core.errors import UserError
from raypath.components.core.graph import Graph
from raypath.components.core.params import Params
from raypath.deploy.console.live_view import view_for
from raypath.deploy.console.run_report import console, show_result
from raypath.deploy.console.terminal import Terminal
from raypath.deploy.execution.cache_key import check_sources, check_steps
from raypath.deploy.execution.run_history import Run
from raypath.deploy.execution.runner import Runner
from raypath.deploy.launchers import RunRequest
from raypath.deploy.local import state as services
from raypath.deploy.local.platform import LocalPlatform
from raypath.deploy.store.factory import open_store


class LocalParams(Params):
    """Settings of the local launcher; there are none."""


PARAMS = LocalParams


def run(request: RunRequest, params: LocalParams) -> None:
    """Run the workflow here and print its result."""
    result, finished, seconds = run_graph(request.graph, request.home, request.fresh)
    show_result(result, finished, seconds)
    show_next(result, request.home)


def render(request: RunRequest, params: LocalParams) -> str:
    """Raise UserError: a local run submits nothing."""
    raise UserError("a run on this machine submits nothing", fix="give --on kuberay or --on kubeflow")


def run_graph(
    graph: Graph, home: Path, fresh: Collection[str] = (), view: AbstractContextManager[Any] | None = None
) -> tuple[Artifact, Run, float]:
    """Run what is not cached. Returns the result, the entry in the run history and the duration in seconds."""
    check_steps(graph, fresh)
    check_sources(graph)
    platform = LocalPlatform(home)
    started = time.monotonic()
    with view or view_for(home, Terminal()) as watcher:
        runner = Runner(graph, open_store(home), platform, watcher)
        try:
            result = runner.execute(fresh)
        finally:
            platform.close()
    return result, runner.run, time.monotonic() - started


def show_next(result: Artifact, home: Path) -> None:
    """Print the next commands after a local run."""
    if isinstance(result, Endpoint):
        _show_endpoint(result, home)
    elif isinstance(result, Release):
        console.print(f"\nUse it:\n  raypath predict models:/{result.name}/{result.version} FILE", markup=False)
    _show_mlflow(home)


def _show_endpoint(endpoint: Endpoint, home: Path) -> None:
    body = shlex.quote(endpoint.example or json.dumps({"text": "Great taste, and it arrived early"}))
    url = f"{endpoint.url}{endpoint.path}"
    console.print(
        f"\nTry it:\n  curl -s {url} {_login(home)}-H 'content-type: application/json' -d {body}", markup=False
    )
    console.print(f"  or in a browser:  {endpoint.url}/", markup=False)


def _login(home: Path) -> str:
    """Return curl's authorization header, which reads this machine's API key when the command is run."""
    key = home / "access" / "local.key"
    if not key.exists():
        return ""
    near = key.relative_to(Path.cwd()) if key.is_relative_to(Path.cwd()) else key
    return f'-H "authorization: Bearer $(cat {shlex.quote(str(near))})" '


def _show_mlflow(home: Path) -> None:
    server = services.read(home).mlflow
    if server:
        console.print(f"Experiments and models in MLflow: {server.address}", markup=False)
    console.print("Stop everything: raypath down", markup=False)
