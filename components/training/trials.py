"""A trial of `tune`: a short run of the one training loop, reported to Ray Tune at every rung.

A trial is named for its settings and keeps its scores in the step's scratch folder. The search is seeded, so after a
kill it proposes the same settings again, and a trial that was finished is read instead of run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune as ray_tune

from components.tasks import load_task, merit
from components.training.loop import Job, Training
from components.training.packing import plan_epoch
from components.training.params import FinetuneParams
from components.training.rows import Rows, load_rows
from components.training.tracking import Track, track


def trial(config: dict[str, Any], task: dict[str, Any]) -> None:
    """Train with `config`'s settings on a sample of the rows, under an MLflow run of its own.

    config: values for fields of FinetuneParams. task: what `tune` puts together.
    """
    name = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    journal = Path(task["scratch"]) / f"trial-{name}.json"
    if journal.exists():
        for line in json.loads(journal.read_text(encoding="utf-8")):
            ray_tune.report(line)
        return
    tracking = task["tracking"]
    parent = f"{tracking.parent}/{task['step']}"
    with track(tracking, name=f"trial-{name}", kind="trial", params=config, parent=parent) as run:
        _train(config, task, run, journal)


def _train(config: dict[str, Any], task: dict[str, Any], run: Track, journal: Path) -> None:
    train = _some(load_rows(task["train"]), task["rows"], task["seed"])
    params = _params(config, task, train)
    reports: list[dict[str, float]] = []

    def on_evaluation(step: int, metrics: dict[str, float]) -> None:
        run.metrics({f"valid/{k}": v for k, v in metrics.items() if "/" not in k}, step)
        reports.append({"score": merit(task["metric"], metrics), "step": step, "rung": len(reports) + 1})
        if len(reports) == task["rungs"]:
            _keep(journal, reports)
        ray_tune.report(reports[-1])

    def on_step(step: int, steps: int, figures: dict[str, float]) -> None:
        run.metrics({f"train/{k}": v for k, v in figures.items()}, step)

    job = Job(
        task=load_task(params.task),
        labels=tuple(task["labels"]),
        folder=Path(task["folder"]),
        train=train,
        valid=_some(load_rows(task["valid"]), task["valid_rows"], task["seed"]),
        params=params,
        seed=task["seed"],
        threads=task["threads"],
        on_step=on_step,
        on_evaluation=on_evaluation,
    )
    Training(job).run()


def _keep(journal: Path, reports: list[dict[str, float]]) -> None:
    aside = journal.with_suffix(".part")
    aside.write_text(json.dumps(reports), encoding="utf-8")
    aside.replace(journal)


def _params(config: dict[str, Any], task: dict[str, Any], train: Rows) -> FinetuneParams:
    """One epoch over the trial's rows, with a look at the validation part at each rung."""
    params = FinetuneParams.model_validate_json(json.dumps(task["finetune"]))
    steps = len(plan_epoch(train.lengths, params.batch_tokens, task["seed"], 0, 1))
    return params.override({**config, "epochs": 1, "patience": 0, "evaluate_every": -(-steps // task["rungs"])})


def _some(everything: Rows, rows: int, seed: int) -> Rows:
    """The same `rows` rows for every trial, drawn at random."""
    if len(everything) <= rows:
        return everything
    return everything.subset(np.sort(np.random.default_rng(seed).permutation(len(everything))[:rows]))
