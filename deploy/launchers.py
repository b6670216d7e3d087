"""Where a workflow can run, by name. A launcher is a file here with

    PARAMS           its settings: `-s kuberay.image=...` sets `image` of the launcher `kuberay`
    run(request, params)
    render(request, params) -> text of what would be submitted
    attach(home, run)   where a run goes on without us

Every launcher ends in `raypath.deploy.execution.step.run_step`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from raypath.components.core.errors import ParamsError, UserError
from raypath.components.core.graph import Graph
from raypath.components.core.params import Params
from raypath.deploy.execution.run_history import load_runs

LAUNCHERS = {
    "local": "raypath.deploy.local.launcher",
    "ray": "raypath.deploy.ray_cluster.launcher",
    "kuberay": "raypath.deploy.kubernetes.launcher",
    "kubeflow": "raypath.deploy.kubeflow.launcher",
}


@dataclass(frozen=True)
class RunRequest:
    """What was asked for on the command line."""

    workflow: str
    """As `raypath list` names it, or package.module:function."""
    graph: Graph
    home: Path
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the workflow's own, by dotted key."""
    fresh: tuple[str, ...] = ()
    address: str = ""
    """Of the cluster, where there is one."""

    def driver(self, run: str = "") -> str:
        """The line of its driver. run: its id, where somebody follows it by that."""
        settings = [part for key, value in self.changes.items() for part in ("-s", f"{key}={word(value)}")]
        fresh = [part for step in self.fresh for part in ("--fresh", step)]
        named = ["--run", run] if run else []
        return shlex.join(
            ["python", "-m", "raypath.deploy.ray_cluster.driver", self.workflow, *settings, *fresh, *named]
        )


def word(value: Any) -> str:
    """A setting as the command line takes it after `-s KEY=`; those of a file have types."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Launcher(Protocol):
    """A module of this folder."""

    PARAMS: type[Params]

    def run(self, request: RunRequest, params: Any) -> None: ...
    def render(self, request: RunRequest, params: Any) -> str: ...


def plan(
    on: str, workflow: str, changes: Mapping[str, Any], home: Path, fresh: tuple[str, ...] = (), address: str = ""
) -> tuple[Launcher, RunRequest, Params]:
    """The launcher, the traced job and the launcher's settings; what begins with the launcher's name is its own."""
    from raypath.deploy.execution.workflow_loader import load

    if importlib.util.find_spec(LAUNCHERS[on]) is None:
        raise UserError(f"nothing runs on {on} yet", fix="give another --on")
    launcher: Any = importlib.import_module(LAUNCHERS[on])
    own = {key.partition(".")[2]: value for key, value in changes.items() if key.startswith(f"{on}.")}
    rest = {key: value for key, value in changes.items() if not key.startswith(f"{on}.")}
    flow = load(workflow)
    graph = flow.trace(flow.params_type().override(rest))
    return launcher, RunRequest(workflow, graph, home, rest, fresh, address), launcher.PARAMS().override(own)


def attach(home: Path, name: str) -> None:
    """Follow a run that was submitted from here. Raises ParamsError for one that runs on no cluster."""
    sent = [run for run in load_runs(home) if run.job]
    run = next((run for run in reversed(sent) if name == "last" or run.id.startswith(name)), None)
    if run is None:
        raise ParamsError(f"no run {name} on a cluster", fix="see `raypath runs`")
    on = "kuberay" if run.where.startswith("kuberay://") else "ray"
    importlib.import_module(LAUNCHERS[on]).attach(home, run)
