"""Launchers by name: where a workflow runs (`--on`), and how its run is described, rendered and submitted.

A launcher is a module with this interface:

    PARAMS                            its settings: `-s kuberay.image=...` sets `image` of the launcher `kuberay`
    run(request, params)              run the workflow, or submit it and follow it to its end
    render(request, params) -> str    text of what would be submitted
    attach(home, run)                 follow a run that was submitted before; only for clusters

Every launcher executes steps through `raypath.deploy.execution.step.run_step`.
"""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import create_model

from raypath.components.core.errors import ParamsError, UserError
from raypath.components.core.graph import Graph
from raypath.components.core.params import Params
from raypath.components.core.workflow import Workflow
from raypath.components.encryption.vault import is_encrypted
from raypath.deploy.execution.preflight import check_graph
from raypath.deploy.execution.run_history import find_run, load_runs

LAUNCHERS = {
    "local": "raypath.deploy.local.launcher",
    "ray": "raypath.deploy.ray_cluster.launcher",
    "kuberay": "raypath.deploy.kubernetes.launcher",
    "kubeflow": "raypath.deploy.kubeflow.launcher",
}


@dataclass(frozen=True)
class RunRequest:
    """A request to run a workflow, as given on the command line."""

    workflow: str
    """A name of `raypath list`, or package.module:function."""
    graph: Graph
    home: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the workflow's defaults, by dotted key."""
    fresh: tuple[str, ...] = ()
    """Steps to run again from their beginning."""
    address: str = ""
    """URL of the cluster, for launchers that need one."""

    def driver_command(self, run: str = "") -> str:
        """Return the shell command of the driver process on a cluster. run: the id under which the run is followed."""
        settings = [part for key, value in self.overrides.items() for part in ("-s", f"{key}={format_setting(value)}")]
        fresh = [part for step in self.fresh for part in ("--fresh", step)]
        named = ["--run", run] if run else []
        return shlex.join(
            ["python", "-m", "raypath.deploy.ray_cluster.driver", self.workflow, *settings, *fresh, *named]
        )


def format_setting(value: Any) -> str:
    """Format a value as `-s KEY=VALUE` parses it: text as it is, typed values from a file as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Launcher(Protocol):
    """Interface of a launcher module."""

    PARAMS: type[Params]

    def run(self, request: RunRequest, params: Any) -> None: ...
    def render(self, request: RunRequest, params: Any) -> str: ...


def prepare(
    on: str, workflow: str, settings: Mapping[str, Any], home: Path, fresh: tuple[str, ...] = (), address: str = ""
) -> tuple[Launcher, RunRequest, Params]:
    """Load the launcher, trace the workflow and split the settings between both.

    Settings that begin with a launcher's name are the launcher's own; those of other launchers are only checked, so
    that one params file serves every platform.
    """
    from raypath.deploy.execution.workflow_loader import load_workflow

    if on != "local" and is_encrypted(home):
        what = f"{home} is encrypted at rest, and --on {on} would store plaintext on the cluster"
        raise UserError(what, fix="run it with --on local, or from a home without encryption")
    launcher = cast(Launcher, importlib.import_module(LAUNCHERS[on]))
    flow = load_workflow(workflow)
    overrides, launchers = split_settings(flow, settings, {on})
    graph = flow.trace(flow.params_type().override(overrides))
    check_graph(graph, final=on != "kubeflow", here=on == "local")
    return launcher, RunRequest(workflow, graph, home, overrides, fresh, address), launchers[on]


def trace(flow: Workflow[Any], settings: Mapping[str, Any], final: bool = True) -> Graph:
    """Trace a workflow with these settings; those of launchers are only checked. Raises ParamsError.

    final: see `check_graph`.
    """
    graph = flow.trace(flow.params_type().override(split_settings(flow, settings)[0]))
    check_graph(graph, final)
    return graph


def split_settings(
    flow: Workflow[Any], settings: Mapping[str, Any], needed: Set[str] = frozenset()
) -> tuple[dict[str, Any], dict[str, Params]]:
    """Split settings into the workflow's and those of launchers. Raises ParamsError for a wrong one of a launcher.

    needed: launchers whose settings are returned also where none is given. They take precedence over a group of the
    workflow's settings with the same name; other launchers do not.
    """
    given = {key.partition(".")[0] for key in settings if "." in key} & set(LAUNCHERS)
    names = needed | (given - set(flow.params_type.model_fields))
    prefixes = tuple(f"{name}." for name in names)
    of_workflow = {key: value for key, value in settings.items() if not key.startswith(prefixes)}
    return of_workflow, {name: _launcher_settings(name, settings) for name in sorted(names)}


def _launcher_settings(on: str, settings: Mapping[str, Any]) -> Params:
    """Return a launcher's own settings, of those that begin with its name. Raises ParamsError."""
    kind: type[Params] = importlib.import_module(LAUNCHERS[on]).PARAMS
    # A group of this name, so that errors give the whole key.
    group = create_model("Group", __base__=Params, **{on: (kind, kind())})  # type: ignore[call-overload]
    found: Params = getattr(group().override({k: v for k, v in settings.items() if k.startswith(f"{on}.")}), on)
    return found


def attach(home: Path, name: str) -> None:
    """Follow a run that was submitted from this home. Raises ParamsError for a run that is on no cluster."""
    submitted = [run for run in load_runs(home) if run.job_id]
    run = find_run(submitted, name)
    if run is None:
        raise ParamsError(f"no run {name} on a cluster", fix="see `raypath runs`")
    on = "kuberay" if run.cluster.startswith("kuberay://") else "ray"
    importlib.import_module(LAUNCHERS[on]).attach(home, run)
