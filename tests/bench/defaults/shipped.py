"""A workflow with the settings it ships with, from `read` to `evaluate`, on the same splits as the grid.

The real graph and the real steps run, in this process and without MLflow; what comes after the evaluation, and the data
report, is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Model, Report, Splits
from raypath.components.core.context import Tracking
from raypath.components.core.graph import Graph, Ref
from raypath.deploy.execution.runner import Runner
from raypath.deploy.execution.step import Outcome, run_step
from raypath.deploy.execution.workflow_loader import load_workflow
from raypath.deploy.store.store import Store
from tests.deploy.execution.in_process import Here, Nobody

TRAINING_STEPS = ("configure", "extract", "tune", "finetune")
"""Steps whose time is that of training."""
REPORTED = ("base", "method", "max_length", "epochs", "lr", "batch_tokens", "frozen_layers", "patience")
"""Settings that a table shows."""


class TimedPlatform(Here):
    """Run steps in this process, with a spool for their metrics, and measure each one's time."""

    def __init__(self, spool: Path) -> None:
        super().__init__()
        self.spool = spool
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    def tracking(self, experiment: str, run: str) -> Tracking:
        return Tracking(experiment=experiment, parent=run, spool=str(self.spool))

    def poll(self, handles: Collection[Any], timeout: float) -> list[tuple[Any, Outcome]]:
        return [(handle, self._run(handle.spec)) for handle in handles]

    def _run(self, spec: Any) -> Outcome:
        began, used = time.perf_counter(), time.process_time()
        outcome = run_step(spec)
        self.seconds[spec.step] = time.perf_counter() - began
        self.cpu_seconds[spec.step] = time.process_time() - used
        return outcome


def up_to(graph: Graph, step: str) -> Graph:
    """Return the part of a graph that `step` needs, with its output as the result."""
    nodes = {node.name: node for node in graph.nodes}
    needed, left = set(), [step]
    while left:
        name = left.pop()
        if name not in needed:
            needed.add(name)
            left += [ref.step for ref in nodes[name].inputs]
    kept = tuple(node for node in graph.nodes if node.name in needed)
    return Graph(graph.workflow, graph.params, kept, Ref(step, nodes[step].component.output))


def run_shipped(
    files: Path, home: Path, settings: dict[str, Any], workflow: str = "text_classification"
) -> dict[str, Any]:
    """Run a workflow on train.csv, valid.csv and test.csv in `files`; return what it chose, its cost and its metrics.

    home: a new folder. settings: flat keys that replace the workflow's own, such as seed. Raises the error of a step
    that failed.
    """
    from raypath.components.training.batches.token_dataset import load_token_dataset

    loaded = load_workflow(workflow)
    given = {"read.uri": str(files), "read.text": "text", "read.label": "label", **settings}
    graph = up_to(loaded.trace(loaded.params_type().override(given)), "evaluate")
    platform = TimedPlatform(home / "spool")
    runner = Runner(graph, Store(home).open(), platform, Nobody())
    report = runner.execute()
    model, splits = runner.done["finetune"], runner.done["preprocess"]
    assert isinstance(report, Report)
    assert isinstance(model, Model)
    assert isinstance(splits, Splits)
    logged = read_spool(platform.spool)
    chosen = logged_settings(logged)
    made = passes(logged.get("finetune", []), int(chosen.get("epochs", 0)))
    lengths = load_token_dataset(splits.train.uri, len(splits.train.labels)).lengths
    training = {name: platform.seconds[name] for name in TRAINING_STEPS if name in platform.seconds}
    return {
        "rows": splits.train.rows,
        "classes": len(model.labels),
        "seed": graph.seed,
        "chosen": {name: chosen[name] for name in REPORTED if name in chosen} | {"max_length": str(model.max_length)},
        "base": model.base,
        "passes": made,
        "tokens": round(made * float(lengths.sum())),
        "accuracy": report.metrics["accuracy"],
        "macro_f1": report.metrics["macro_f1"],
        "seconds": {name: round(value, 2) for name, value in training.items()},
        "cpu_seconds": {name: round(platform.cpu_seconds[name], 2) for name in training},
    }


def read_spool(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the tracking events of each run in a spool, by the run's name."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found.update({event["name"]: events for event in events if event["event"] == "open"})
    return found


def logged_settings(logged: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return the settings of `finetune`: those of its Params, replaced by those that `configure` and `tune` chose."""
    found: dict[str, str] = {}
    for event in logged.get("finetune", []):
        if event["event"] == "open":
            # Settings of a step are logged as JSON.
            found |= {key.rpartition(".")[2]: str(json.loads(value)) for key, value in event["params"].items()}
    for name, prefix in (("configure", "chosen."), ("finetune", "chosen."), ("finetune", "used.")):
        for event in logged.get(name, []):
            if event["event"] == "params":
                values = event["values"].items()
                found |= {key.removeprefix(prefix): value for key, value in values if key.startswith(prefix)}
    return found


def passes(events: list[dict[str, Any]], epochs: int) -> float:
    """Return the passes over the training rows that were made: fewer than `epochs` after an early stop."""
    planned = [int(e["values"]["run.steps"]) for e in events if e["event"] == "params" and "run.steps" in e["values"]]
    made = [e["step"] for e in events if e["event"] == "metrics" and any(k.startswith("train/") for k in e["values"])]
    return round(epochs * max(made) / planned[-1], 2) if planned and made else 0.0
