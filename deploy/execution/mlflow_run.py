"""A workflow's run as MLflow shows it: its name, source, data, metrics and description."""

from __future__ import annotations

import contextlib
import getpass
import math
import subprocess
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from raypath.deploy.execution.run_history import Run, StepState

MOST_SETTINGS = 30
"""Changed settings in a description; the others are among the run's parameters."""
_SOURCE = "read.uri"


def run_name(run: Run) -> str:
    """Name a run after its data and the time of its start (UTC), such as "reviews.csv, 30 Nov 14:05"."""
    uri = str(run.params.get(_SOURCE) or "").rstrip("/")
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

    A version and an endpoint repeat the metrics of the evaluation; of these there are none.
    """
    made = state.artifact or {}
    found = {} if "version" in made else made.get("metrics", {})
    return {f"{state.name}/{key}": value for key, value in found.items() if "/" not in key and math.isfinite(value)}


def dataset_of(state: StepState) -> dict[str, Any] | None:
    """Return the dataset that a step read from a source, as `Track.dataset` takes it; None for other steps."""
    made = state.artifact or {}
    if state.name != "read" or not made.get("source") or "rows" not in made:
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

    metrics = _artifact(run, "evaluate").get("metrics", {})
    whole = {name: value for name, value in metrics.items() if "/" not in name}
    return "\n".join(metric_table(whole)) if whole else ""


def _outcome(run: Run) -> str:
    release, endpoint = _artifact(run, "register"), _artifact(run, "serve")
    lines = []
    if release:
        name, version = release["name"], release["version"]
        link = f"[{name} version {version}](#/models/{name}/versions/{version})"
        lines.append(f"Registered as **{link}**, {release['alias']}: {release['reason']}.")
    if endpoint.get("url"):
        lines.append(f"In service at {endpoint['url']}.")
    if _artifact(run, "evaluate"):
        lines.append("Confusion matrix and other plots: artifacts of the child run `evaluate`.")
    return "\n\n".join(lines)


def _settings(run: Run, defaults: Mapping[str, Any]) -> str:
    changed = [f"- `{key}` = `{value}`" for key, value in run.params.items() if defaults.get(key) != value]
    if not changed:
        return "All settings are the defaults."
    more = [f"- and {len(changed) - MOST_SETTINGS} more"] if len(changed) > MOST_SETTINGS else []
    return "\n".join(["Settings that are not the defaults:", "", *changed[:MOST_SETTINGS], *more])


def _artifact(run: Run, step: str) -> dict[str, Any]:
    found = [state.artifact for state in run.steps if state.name == step and state.status.succeeded]
    return (found[0] or {}) if found else {}


def _git(*words: str) -> str:
    """Return what git prints in the current folder; "" outside a repository or without git."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
