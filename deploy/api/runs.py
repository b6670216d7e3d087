"""Run workflows, and look at the run history."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from raypath.components.core.errors import PlatformError
from raypath.deploy.api.jobs import Flow, GivenSettings, prepare
from raypath.deploy.api.progress import view_of
from raypath.deploy.api.project import home_folder, private_process
from raypath.deploy.api.run_results import Run
from raypath.deploy.execution.cache_key import settings_digest
from raypath.deploy.execution.run_history import load_runs

_one_run = threading.Lock()
"""Held by a local run: a process has one connection to Ray, which a run replaces when its head has died."""


def run(
    workflow: Flow,
    settings: GivenSettings = None,
    *,
    on: str = "local",
    fresh: str | Iterable[str] = (),
    home: str | Path | None = None,
    address: str = "",
    progress: bool | None = None,
) -> Run:
    """Run a workflow to its end. Steps whose inputs, settings and code have not changed are reused.

    Ctrl-C, or Kernel > Interrupt in a notebook, stops the run; the same call resumes it. Local runs in several threads
    of a process wait for each other; runs in several processes do not.

    Args:
        workflow: A name (`raypath list`), `package.module:function`, or a workflow object.
        settings: Nested or dotted keys, such as {"finetune.epochs": 3}, or an instance of the workflow's Params.
        on: local, ray, kuberay or kubeflow; `{on}.KEY` in the settings are those of the launcher.
        fresh: Steps to run from the beginning, even where nothing changed.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.
        address: URL of the Ray cluster for on="ray".
        progress: None shows progress in terminals and notebooks, True also in logs (stderr), False never.

    Returns:
        The run, with steps, metrics, warnings, artifacts and the endpoint.

    Raises:
        UserError: Something to correct in the workflow, the settings or the data.
        PlatformError: A service, the disk or the cluster failed.
        StepFailed: A component raised an unexpected error.
        KeyboardInterrupt: The run was stopped.

    Example:
        run = raypath.run("text_classification", {"read.uri": "mine.csv", "read.text": "body", "read.label": "topic"})
        print(run.status, run.metrics["macro_f1"])
    """
    folder = home_folder(home)
    with private_process():
        launcher, job, params = prepare(workflow, settings, on, folder, fresh, address)
        if on == "local":
            from raypath.deploy.local.launcher import run_graph

            with _one_run:
                _, record, _ = run_graph(job.graph, folder, job.fresh, view_of(folder, progress))
            return Run.of(record, folder)
        launcher.run(job, params)
        digest = settings_digest(job.graph)
        found = [record for record in load_runs(folder) if record.settings_digest == digest and record.cluster]
        if not found:
            raise PlatformError(f"the run on {on} left no record in {folder}", fix="see the output of the launcher")
        return Run.of(found[-1], folder)


def runs(*, home: str | Path | None = None, workflow: str = "") -> list[Run]:
    """Return the run history of a project, the latest run last.

    Args:
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.
        workflow: Only runs of this workflow, by its name.
    """
    folder = home_folder(home)
    return [Run.of(record, folder) for record in load_runs(folder) if workflow in ("", record.workflow)]
