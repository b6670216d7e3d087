"""Output of commands: graphs, results and the run history."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import COMPARISON_PAGE, PAGE, Artifact, Endpoint, Report
from raypath.components.core.errors import ParamsError
from raypath.components.core.graph import Graph
from raypath.components.core.params import describe_fields
from raypath.components.encryption.vault import vault_for
from raypath.deploy.console.live_view import MARKS, clock
from raypath.deploy.console.terminal import Terminal
from raypath.deploy.execution.mlflow_run import artifact_of
from raypath.deploy.execution.run_history import Run, StepStatus, find_run, load_runs

HEADLINE = ("accuracy", "macro_f1", "weighted_f1", "mean_average_precision", "r2", "mae", "rmse", "ece", "log_loss")
"""Metrics shown after those that have a confidence interval."""


console = Terminal(highlight=False, soft_wrap=True)


def show_graph(graph: Graph) -> None:
    """Print the steps with their edges, then every setting with its value, type and description."""
    console.print(f"[bold]{graph.workflow}[/]")
    for line in graph.describe():
        console.print(f"  {line}", markup=False)
    values = graph.params.flat()
    for key, kind, text in describe_fields(type(graph.params)):
        console.print(f"\n{key} = {json.dumps(values.get(key), ensure_ascii=False)}", markup=False, style="bold")
        console.print(f"    {kind}. {text}", markup=False)


def show_result(result: Artifact | None, run: Run, seconds: float) -> None:
    """Print the result of a run: metrics, model version, endpoint."""
    reused = sum(s.status is StepStatus.REUSED for s in run.steps)
    console.print(f"\n[bold green]done[/] in {clock(seconds)}, {reused} of {len(run.steps)} steps reused")
    report = artifact_of(run, Report)[1]
    metrics = report.get("metrics", {})
    shown = [name for name in _headline(metrics) if name in metrics]
    width = max(12, *map(len, shown), 0)
    for name in shown:
        interval = [metrics.get(f"{name}_{end}") for end in ("low", "high")]
        spread = f"  (95%: {interval[0]:.4f} to {interval[1]:.4f})" if None not in interval else ""
        before = f", before {old:.4f}" if (old := metrics.get(f"before/{name}")) is not None else ""
        console.print(f"  test {name:<{width}} {metrics[name]:.4f}{spread}{before}")
    if page := _page(report):
        console.print(f"  report            {_shown(page)}", markup=False)
    release = _artifact_of(run, "register")
    if release:
        console.print(f"  registered        {release['name']} version {release['version']} @{release['alias']}")
        console.print(f"  because           {release['reason']}", markup=False)
    if page := _page(_artifact_of(run, "register"), COMPARISON_PAGE):
        console.print(f"  comparison        {_shown(page)}", markup=False)
    if isinstance(result, Endpoint):
        console.print(f"  in service        {result.name} version {result.version} at {result.url}")


def _headline(metrics: Mapping[str, float]) -> list[str]:
    """Return the names of a task's main metrics, which have intervals, then of other common ones."""
    main = [name.removesuffix("_low") for name in metrics if name.endswith("_low")]
    return list(dict.fromkeys([*main, *HEADLINE]))


def _artifact_of(run: Run, step: str) -> dict[str, Any] | None:
    return next((s.artifact for s in run.steps if s.name == step), None)


def _page(artifact: Mapping[str, Any] | None, name: str = PAGE) -> Path | None:
    """Return the path of a page of an artifact, if it has one on this machine."""
    if not artifact or not artifact.get("uri"):
        return None
    page = Path(artifact["uri"]) / name
    return page if page.is_file() else None


def _shown(page: Path) -> str:
    """Return the path of a page, or the command that decrypts it where the path is one in memory."""
    vault = vault_for(page)
    if vault is None or page.is_relative_to(vault.home):
        return str(page)
    return f"raypath encryption decrypt {vault.home / 'artifacts' / page.parent.name} -o report"


def show_runs(home: Path) -> None:
    """Print all runs, the latest last."""
    found = load_runs(home)
    if not found:
        console.print("no runs yet; start with `raypath run text_classification`")
    for run in found:
        ran = sum(s.status.ran for s in run.steps)
        status = "interrupted" if run.interrupted() else run.status
        took = "" if run.interrupted() else clock((run.ended or time.time()) - run.started)
        steps = f"{ran} of {len(run.steps)} steps ran"
        place = f", at {run.cluster}" if run.cluster else ""
        console.print(f"{run.id:<48} {status:<11} {took:>8}  {steps}{place}", markup=False)


def show_run(home: Path, name: str) -> None:
    """Print the steps of one run: status, time, reason and location of the files. Raises ParamsError."""
    found = load_runs(home)
    run = find_run(found, name)
    if run is None:
        raise ParamsError(
            f"no run {name}", fix="see `raypath runs`" if found else "start with `raypath run text_classification`"
        )
    console.print(f"[bold]{run.id}[/]  {run.status}")
    for step in run.steps:
        mark, style = MARKS[step.status]
        took = clock(step.seconds) if step.seconds else ""
        console.print(f"[{style}]{mark}[/] {step.name:<12} {step.status:<8} {took:>8}  ", end="")
        console.print(step.error or step.reason, markup=False)
        for note in step.notes:
            console.print(f"    {note}", markup=False)
        for warning in step.warnings:
            console.print(f"    ! {warning}", style="yellow", markup=False)
        if step.artifact:
            console.print(f"    {_page(step.artifact) or step.artifact['uri']}", style="dim", markup=False)
