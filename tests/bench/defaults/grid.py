"""Trainings with given settings on the splits of a set, in Raypath's own loop: one JSON line each.

The grid is epochs 1 to 5 by three learning rates, embeddings frozen, 32 rows a step on average, linear decay after a
tenth of the steps, the weights of the best epoch on valid. A machine that does other work makes seconds meaningless:
steps, tokens and the processor's own seconds are counted as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.artifacts import Splits
from tests.bench.reviews import BASE, context, settled
from tests.bench.tables import say

EPOCHS = (1, 2, 3, 4, 5)
RATES = (3e-5, 1e-4, 3e-4)
ROWS_A_STEP = 32


@dataclass(frozen=True)
class Point:
    """One training of the grid."""

    epochs: int
    lr: float
    seed: int = 0


def points(seeds: int) -> Iterator[Point]:
    """Yield the grid of each seed: 1, 3 and 5 epochs first, so that a grid that is cut short still spans all."""
    for seed in range(seeds):
        for epochs in sorted(EPOCHS, key=lambda n: (n % 2 == 0, n)):
            yield from (Point(epochs, lr, seed) for lr in reversed(RATES))


def prepare(files: Path, folder: Path, max_length: int, base: str = BASE, threads: int = 2) -> Splits:
    """Read, split and preprocess train.csv, valid.csv and test.csv in `files` with the real steps.

    The files' rows stay in their splits. folder: for what the steps write.
    """
    from raypath.components.preprocess import PreprocessParams, preprocess
    from raypath.components.read import ReadParams, read
    from raypath.components.split import SplitParams, split

    def made(step: Any, *given: Any) -> Any:
        ctx = context(folder, step.name, threads)
        return settled(ctx, step.fn(ctx, *given))

    rows = made(split, made(read, ReadParams(uri=str(files))), SplitParams())
    splits: Splits = made(preprocess, rows, PreprocessParams(max_length=max_length).using(base))
    return splits


def train(splits: Splits, point: Point, base: str = BASE, threads: int = 2) -> dict[str, Any]:
    """Train one point of the grid; return its settings, cost, and metrics on valid and test."""
    from raypath.components.models.base_models import base_folder
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.batches.token_dataset import load_token_dataset
    from raypath.components.training.compatibility import metadata_for
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.loop.trainer import start_training
    from raypath.components.training.loop.validate import evaluate
    from raypath.components.training.params import ResolvedParams
    from raypath.components.training.runtime.process_group import ProcessGroup

    rows, valid, test = (load_token_dataset(part.uri, len(part.labels)) for part in _parts(splits))
    params = ResolvedParams(
        base=base,
        epochs=point.epochs,
        lr=point.lr,
        patience=0,
        frozen_layers=0,
        batch_tokens=max(64, round(ROWS_A_STEP * float(rows.lengths.mean()))),
        memory="full",
    )
    folder = base_folder(params.base)
    task = load_task(metadata_for(params, splits.train, folder), params.objective).fit(rows.targets)
    began, used = time.perf_counter(), time.process_time()
    training = start_training(
        TrainingJob(task=task, folder=folder, train=rows, valid=valid, params=params, seed=point.seed, threads=threads)
    )
    best = training.run()
    seconds, used = time.perf_counter() - began, time.process_time() - used
    recorded = evaluate(task, training.model, test, ProcessGroup(), 2048, training.pad, training.bf16)
    metrics = task.metrics(test.targets, task.decode(recorded))
    return {
        "rows": len(rows),
        "classes": len(splits.train.labels),
        "epochs": point.epochs,
        "lr": point.lr,
        "seed": point.seed,
        "accuracy": metrics["accuracy"],
        "macro_f1": metrics["macro_f1"],
        "valid_accuracy": best["accuracy"],
        "valid_macro_f1": best["macro_f1"],
        "best_step": training.progress.best_step,
        "steps": training.steps,
        "batch_tokens": params.batch_tokens,
        "tokens": int(rows.lengths.sum()) * point.epochs,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),
        "threads": threads,
    }


def _parts(splits: Splits) -> tuple[Any, Any, Any]:
    return splits.train, splits.valid, splits.test


def run(prepared: dict[str, Splits], grid: Iterable[Point], results: Path, threads: int) -> None:
    """Train each point on each set and append its line to `results`; points that are there already are left out."""
    done = {(line["set"], line["epochs"], line["lr"], line["seed"]) for line in lines(results)}
    for point in grid:
        for name, splits in prepared.items():
            if (name, point.epochs, point.lr, point.seed) not in done:
                line = train(splits, point, threads=threads)
                append(results, {"set": name, **line})
                say(f"{name} {point}: accuracy {line['accuracy']:.4f}, {line['seconds']:.0f} s")


def append(results: Path, line: dict[str, Any]) -> None:
    """Append a result."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def lines(results: Path) -> list[dict[str, Any]]:
    """Return the results that were written so far."""
    if not results.is_file():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines() if line.strip()]
