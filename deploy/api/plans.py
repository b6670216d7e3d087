"""Plan a run: the steps that would run, those that are reused, and an estimate of the time. Starts nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Artifact
from raypath.components.core.errors import Unavailable
from raypath.components.core.graph import Graph, Node
from raypath.deploy.api.jobs import Flow, GivenSettings, prepare
from raypath.deploy.api.project import home_folder, private_process
from raypath.deploy.api.results import Plan, PlannedStep
from raypath.deploy.execution.cache_key import (
    INPUT,
    cache_key_inputs,
    check_sources,
    compute_key,
    explain_change,
    own_key_inputs,
)
from raypath.deploy.execution.run_history import StepStatus, last_key_inputs, load_runs
from raypath.deploy.execution.step import liveness_context
from raypath.deploy.local.platform import LocalPlatform
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.store import Store

PLACES = {"local": "this machine", "ray": "Ray cluster", "kuberay": "RayJob", "kubeflow": "Kubeflow pipeline"}


def plan(
    workflow: Flow,
    settings: GivenSettings = None,
    *,
    on: str = "local",
    fresh: str | Iterable[str] = (),
    home: str | Path | None = None,
) -> Plan:
    """Return what `run` with the same arguments would do. Starts no service and changes nothing.

    Records are read from this machine's store, or from RAYPATH_STORE; with on="ray" and the like that is right where
    the cluster uses the same store.

    Args:
        workflow: A name (`raypath list`), `package.module:function`, or a workflow object.
        settings: Nested or dotted keys, such as {"finetune.epochs": 3}, or an instance of the workflow's Params.
        on: local, ray, kuberay or kubeflow; `{on}.KEY` in the settings are those of the launcher.
        fresh: Steps to run from the beginning, even where nothing changed.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.

    Raises:
        UserError: Something to correct in the workflow, the settings or the files they name.
    """
    folder = home_folder(home)
    with private_process():
        _, job, _ = prepare(workflow, settings, on, folder, fresh, "")
        if on == "local":
            check_sources(job.graph)
        store = open_store(folder)
        steps = _Planner(job.graph, store, PLACES[on], job.fresh).steps()
    left = [step.seconds for step in steps if step.action != "reuse"]
    total = None if None in left else sum(seconds for seconds in left if seconds is not None)
    return Plan(workflow=job.graph.workflow, on=on, steps=steps, seconds=total)


class _Planner:
    """Walks a graph as the runner does, without running a step."""

    def __init__(self, graph: Graph, store: Store, where: str, fresh: Collection[str]) -> None:
        self._graph, self._store, self._where, self._fresh = graph, store, where, fresh
        self._before = last_key_inputs(store.home, graph.workflow)
        self._seconds = _seconds_of(store.home, graph.workflow)
        self._done: dict[str, Artifact] = {}

    def steps(self) -> list[PlannedStep]:
        return [self._step(node) for node in self._graph.nodes]

    def _step(self, node: Node) -> PlannedStep:
        action, reason = self._decide(node)
        return PlannedStep(
            name=node.name,
            action=action,
            reason=reason,
            inputs=[str(ref) for ref in node.inputs],
            output=node.component.output.__name__,
            where=self._where,
            seconds=0.0 if action == "reuse" else self._seconds.get((node.name, node.component.path)),
        )

    def _decide(self, node: Node) -> tuple[Any, str]:
        before = self._before.get(node.name)
        if node.name in self._fresh:
            return "run", "asked for with --fresh"
        if unknown := [ref.step for ref in node.inputs if ref.step not in self._done]:
            own = own_key_inputs(node, self._graph)
            known = before and {name: value for name, value in before.items() if not name.startswith(INPUT)}
            if own != known:
                return "run", explain_change(own, known)
            *others, last = dict.fromkeys(unknown)
            made = f"{', '.join(others)} and {last} make" if others else f"{last} makes"
            return "depends", f"reused if {made} the same as before"
        inputs = cache_key_inputs(node, self._graph, self._done)
        record = self._store.record(compute_key(inputs))
        if record is None:
            return "run", explain_change(inputs, before)
        artifact = node.component.output.model_validate_json(json.dumps(record.artifact))
        try:
            if not self._still_there(node, artifact):
                return "run", "what it made no longer exists"
        except Unavailable:
            # The steps after it are as if it were reused: its services come up with the run.
            self._done[node.name] = artifact
            return "depends", "reused if what it made is still there; its service is down now"
        self._done[node.name] = artifact
        return "reuse", "nothing changed"

    def _still_there(self, node: Node, artifact: Artifact) -> bool:
        if node.component.alive is None:
            return True
        platform = LocalPlatform(self._store.home)
        tracking = platform.tracking(self._graph.workflow, "")
        return node.component.alive(
            liveness_context(node.name, self._store.home, tracking, platform.serve_url()), artifact
        )


def _seconds_of(home: Path, workflow: str) -> dict[tuple[str, str], float]:
    """Seconds of the latest completed execution by step and component; of the same workflow where there is one."""
    found: dict[tuple[str, str], float] = {}
    for run in sorted(load_runs(home), key=lambda run: run.workflow == workflow):
        for step in run.steps:
            if step.status is StepStatus.DONE:
                found[step.name, step.key_inputs.get("component", "")] = round(step.seconds, 1)
    return found
