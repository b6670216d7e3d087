"""Run a graph on this machine: the runner with the local platform, the live view, and numbers carried to MLflow."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from components.core.artifacts import Artifact
from components.core.errors import ParamsError, UserError
from components.core.graph import Graph
from deploy import local
from deploy.ray_tasks import RayTasks
from deploy.runner import Runner
from deploy.runs import Run
from deploy.store import Store
from deploy.view import view_for


def run_graph(graph: Graph, home: Path, fresh: Collection[str] = ()) -> tuple[Artifact, Run, float]:
    """Run what is not committed. Returns the result, the run's diary and the seconds it took."""
    names = [node.name for node in graph.nodes]
    for step in fresh:
        if step not in names:
            near = difflib.get_close_matches(step, names, n=1)
            raise ParamsError(
                f"--fresh {step}: no such step",
                fix=f"did you mean {near[0]}?" if near else f"its steps are {', '.join(names)}",
            )
    platform = RayTasks(home)
    console = Console()
    started = time.monotonic()
    with view_for(home, console) as view:
        runner = Runner(graph, Store(home).open(), platform, view)
        try:
            result = runner.execute(fresh)
        finally:
            platform.close()
    return result, runner.run, time.monotonic() - started


def tracking_uri(home: Path) -> str:
    """The address of this home's MLflow server, which is brought up when it is not."""
    services = local.up(home, ray=False)
    assert services.mlflow is not None
    return services.mlflow.address


def follow(home: Path, name: str, version: int) -> str:
    """Let the endpoint of a model follow a moved alias; returns what to add to the line that tells of the move."""
    from components.serving import deploy as serving

    if local.status(home)[0].state != "up":
        return "; nothing serves it now"
    local.connect(home)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if not serving.running():
        return "; nothing serves it now"
    try:
        serving.swap(name, version)
    except UserError:
        return "; nothing serves it now"
    return " and in service"
