"""Run a graph on this machine: the runner with the local platform, the live view, and numbers carried to MLflow."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from raypath.components.core.artifacts import Artifact
from raypath.components.core.errors import UserError
from raypath.components.core.graph import Graph
from raypath.components.core.params import Params
from raypath.deploy.console.live_view import view_for
from raypath.deploy.console.run_report import show_next, show_result
from raypath.deploy.execution.cache_key import check_steps
from raypath.deploy.execution.run_history import Run
from raypath.deploy.execution.runner import Runner
from raypath.deploy.launchers import Job
from raypath.deploy.local import services as local
from raypath.deploy.local.platform import RayTasks
from raypath.deploy.store.store import open_store


class LauncherParams(Params):
    """This machine has nothing to set."""


def run(job: Job, params: LauncherParams) -> None:
    """Run the job here and tell how it ended."""
    result, diary, seconds = run_graph(job.graph, job.home, job.fresh)
    show_result(result, diary, seconds)
    show_next(result, job.home)


def render(job: Job, params: LauncherParams) -> str:
    """Nothing is submitted here."""
    raise UserError("a run on this machine submits nothing", fix="give --on kuberay or --on kubeflow")


def run_graph(graph: Graph, home: Path, fresh: Collection[str] = ()) -> tuple[Artifact, Run, float]:
    """Run what is not committed. Returns the result, the run's diary and the seconds it took."""
    check_steps(graph, fresh)
    platform = RayTasks(home)
    console = Console()
    started = time.monotonic()
    with view_for(home, console) as view:
        runner = Runner(graph, open_store(home), platform, view)
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


def follow(home: Path, name: str, version: int, before: int) -> str:
    """Let the endpoint of a model follow a moved alias; returns what to add to the line that tells of the move.

    A version that a replica refuses loses the alias to the one `before` it (0: there was none). Raises PlatformError.
    """
    from raypath.components.serving.control import deployer as serving
    from raypath.components.serving.control import rollout

    if local.status(home)[0].state != "up":
        return "; nothing serves it now"
    local.connect(home)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if not serving.running():
        return "; nothing serves it now"
    try:
        awake = rollout.swap(name, version, before=before)
    except UserError:
        return "; nothing serves it now"
    return " and in service" if awake else "; its endpoint sleeps, and the next request has that version"
