"""Versions as MLflow's pages show them: a description, and the metrics of the logged model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from raypath.components.tracking.experiments import save_view
from raypath.components.tracking.tags import BASE, DATA, LABELS, METRIC_PREFIX, PRECISION, TASK

COLUMNS = 3
"""Metrics in the view of an experiment's runs, the task's own first."""


def show_version(client: Any, logged: Any, version: Any, tags: Mapping[str, str], metric: str) -> None:
    """Describe a new version, log the metrics on its model, and save a view of the experiment's runs with them.

    metric: the task's own.
    """
    metrics = {key.removeprefix(METRIC_PREFIX): float(tags[key]) for key in tags if key.startswith(METRIC_PREFIX)}
    metrics = dict(sorted(metrics.items(), key=lambda each: each[0] != metric))
    client.update_model_version(version.name, str(version.version), describe_version(tags, metrics))
    if logged.source_run_id:
        _log_metrics(client, logged, metrics)
    save_view(client, logged.experiment_id, [f"evaluate/{name}" for name in main_metrics(metrics, metric)])


def show_decision(client: Any, name: str, version: int, alias: str, reason: str) -> None:
    """Put the alias that a version was given, and the reason, before its description; once."""
    line, old = f"**{alias}**: {reason}", client.get_model_version(name, str(version)).description or ""
    if not old.startswith(line):
        client.update_model_version(name, str(version), f"{line}\n\n{old}")


def describe_version(tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """Describe a version in Markdown: what it is, and its metrics with their intervals."""
    what = [f"Task `{tags.get(TASK, '')}`"]
    if int(tags.get(LABELS, "0")):
        what.append(f"{tags[LABELS]} labels")
    what += [f"base `{tags[BASE]}`"] if tags.get(BASE) else []
    what += [f"inference in `{tags[PRECISION]}`"] if tags.get(PRECISION) else []
    tested = [f"Tested on {tags[DATA]}.", ""] if tags.get(DATA) else []
    return "\n".join([", ".join(what) + ".", "", *tested, *metric_table(metrics)])


def main_metrics(metrics: Mapping[str, float], own: str) -> list[str]:
    """Return the names of the metrics that a list of runs has columns for."""
    values = [name for name in metrics if not name.endswith(("_low", "_high"))]
    # Those with an interval are what a task is judged by.
    return sorted(values, key=lambda name: (name != own, f"{name}_low" not in metrics))[:COLUMNS]


def metric_table(metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield the lines of a table in Markdown: each metric with its interval, if it has one."""
    yield from ("| metric on the test split | value | 95% interval |", "| --- | --- | --- |")
    for name, value in metrics.items():
        if not name.endswith(("_low", "_high")):
            bounds = [metrics[key] for key in (f"{name}_low", f"{name}_high") if key in metrics]
            yield f"| {name} | {value:.4f} | {' to '.join(f'{bound:.4f}' for bound in bounds)} |"


def _log_metrics(client: Any, logged: Any, metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now, run = int(time.time() * 1000), logged.source_run_id
    found = [Metric(name, value, now, 0, model_id=logged.model_id, run_id=run) for name, value in metrics.items()]
    client.log_batch(run, metrics=found)
