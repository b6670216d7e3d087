"""A workflow's run as MLflow shows it: its name, source, data, metrics and description.

Steps are recognised by the type of the artifact that they made, and not by their names, which a workflow may choose.
"""

from __future__ import annotations

import contextlib
import getpass
import math
import subprocess
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from raypath.components.core.artifacts import Artifact, Dataset, Endpoint, Release, Report
from raypath.deploy.execution.run_history import Run, StepState

MOST_SETTINGS = 30
"""Changed settings in a description; the others are among the run's parameters."""
_SOURCE = "read.uri"
_TESTED = "evaluate"
"""Prefix of the metrics of a Report, whatever the step is called: the saved view of an experiment has columns for
them."""


def run_name(run: Run) -> str:
    """Name a run after its data and the time of its start (UTC), such as "reviews.csv, 30 Nov 14:05"."""
    other = next((value for key, value in run.params.items() if key.endswith(".uri") and value), "")
    uri = str(run.params.get(_SOURCE) or other).rstrip("/")
    data = PurePosixPath(uri.rpartition("://")[2].partition("?")[0]).name or run.workflow
    return f"{data[:40]}, {time.strftime('%-d %b %H:%M', time.gmtime(run.started))}"


def source_tags(run: Run) -> dict[str, str]:
    """Return MLflow's tags of the source of a run: the workflow, the commit of the current folder, the user."""
    found = {"mlflow.source.name": run.workflow, "mlflow.source.type": "JOB" if run.cluster else "LOCAL"}
    with contextlib.suppress(KeyError, OSError):  # a user id without a name, in a container
        found["mlflow.user"] = getpass.getuser()
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["mlflow.source.git.commit"] = commit
    return found


def metrics_of(state: StepState) -> dict[str, float]:
    """Return the metrics of a step's output as STEP/METRIC, without those of single classes.

    Those of an evaluation are evaluate/METRIC. A version and an endpoint repeat them; of these there are none.
    """
    made = state.artifact or {}
    found = {} if is_a(made, Release) or is_a(made, Endpoint) else made.get("metrics", {})
    prefix = _TESTED if is_a(made, Report) else state.name
    return {f"{prefix}/{key}": value for key, value in found.items() if "/" not in key and math.isfinite(value)}


def dataset_of(state: StepState) -> dict[str, Any] | None:
    """Return the dataset that a step made of a source, as `Track.dataset` takes it; None for other steps."""
    made = state.artifact or {}
    if not is_a(made, Dataset) or not made.get("source"):
        return None
    source, rows = str(made["source"]), int(made["rows"])
    name = PurePosixPath(source.rstrip("/").rpartition("://")[2]).name or source
    return {"name": name, "digest": made["digest"], "source": source, "context": "data", "rows": rows}


def describe(run: Run, defaults: Mapping[str, Any]) -> str:
    """Describe a run in Markdown: result, metrics, version, endpoint, and the settings that are not the defaults."""
    return "\n\n".join(part for part in (_outcome(run), _metrics(run), _settings(run, defaults), _steps(run)) if part)


def _steps(run: Run) -> str:
    ran = sum(state.status.ran for state in run.steps)
    line = f"{ran} of {len(run.steps)} steps ran; the run is {run.status.value}."
    failed = [f"`{state.name}` failed: {state.error}" for state in run.steps if state.error]
    return "\n\n".join([*failed, line])


def _metrics(run: Run) -> str:
    from raypath.components.registry.presentation import metric_table

    metrics = artifact_of(run, Report)[1].get("metrics", {})
    whole = {name: value for name, value in metrics.items() if "/" not in name}
    return "\n".join(metric_table(whole)) if whole else ""


def _outcome(run: Run) -> str:
    release, endpoint = artifact_of(run, Release)[1], artifact_of(run, Endpoint)[1]
    evaluation, report = artifact_of(run, Report)
    lines = []
    if release:
        name, version = release["name"], release["version"]
        link = f"[{name} version {version}](#/models/{name}/versions/{version})"
        lines.append(f"Registered as **{link}**, {release['alias']}: {release['reason']}.")
    if endpoint.get("url"):
        lines.append(f"In service at {endpoint['url']}.")
    if report:
        lines.append(f"Plots of the evaluation: artifacts of the child run `{evaluation}`.")
    return "\n\n".join(lines)


def _settings(run: Run, defaults: Mapping[str, Any]) -> str:
    changed = [f"- `{key}` = `{value}`" for key, value in run.params.items() if defaults.get(key) != value]
    if not changed:
        return "All settings are the defaults."
    more = [f"- and {len(changed) - MOST_SETTINGS} more"] if len(changed) > MOST_SETTINGS else []
    return "\n".join(["Settings that are not the defaults:", "", *changed[:MOST_SETTINGS], *more])


def is_a(made: Mapping[str, Any], kind: type[Artifact]) -> bool:
    """Return True if an artifact, as JSON, is of this type or of one derived from it, by the fields it has to have."""
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    return required <= made.keys()


def artifact_of(run: Run, kind: type[Artifact]) -> tuple[str, dict[str, Any]]:
    """Return step and artifact of the last step that made an artifact of this type; "" and {} without one."""
    found = [(state.name, state.artifact) for state in run.steps if state.artifact and state.status.succeeded]
    return next(((name, made) for name, made in reversed(found) if is_a(made, kind)), ("", {}))


def _git(*words: str) -> str:
    """Return what git prints in the current folder; "" outside a repository or without git."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
