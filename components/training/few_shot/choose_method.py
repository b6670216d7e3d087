"""Choose the method of a training by stratified cross-validation on the training rows, within a bound of time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.data.wording import plural
from raypath.components.tasks.base import Task
from raypath.components.training.batches.token_dataset import TokenRows
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import start_training
from raypath.components.training.params import ResolvedParams

FOLDS = 4
NEVER = 1 << 40
"""`evaluate_every` of a training whose last weights are judged, since the best ones would be chosen by the held-out
rows."""


@dataclass(frozen=True)
class MethodChoice:
    """Result of the cross-validation. scores: the metric by fold for each candidate, higher is better; seconds: of one
    training of each candidate."""

    name: str
    params: ResolvedParams
    scores: dict[str, tuple[float, ...]]
    seconds: dict[str, float]
    reason: str
    """One sentence."""


def choose_method(
    candidates: Mapping[str, ResolvedParams],
    task: Task,
    folder: Path,
    rows: TokenRows,
    seed: int,
    threads: int = 0,
    seconds: float = 120.0,
    folds: int = FOLDS,
) -> MethodChoice:
    """Train each candidate on all folds but one, and score it on that one; return the candidate with the best mean.

    Candidates are in order of preference: a later one is chosen only if its mean over the folds is better by more than
    one standard error of the difference. They are trained fold by fold. When the next training would exceed `seconds`,
    its candidate is left out of the remaining folds, and candidates are compared on the folds they share. The first
    candidate always has one fold.

    task: with the metadata of the model; folder: the base model; rows: the train split. Rows of a class with a single
    row are never held out. Raises DataError where no class has two rows.
    """
    if not candidates:
        raise ValueError("no candidate")
    scores: dict[str, list[float]] = {name: [] for name in candidates}
    cost: dict[str, float] = {}
    began = time.monotonic()
    for number, (train, held_out) in enumerate(split_folds(np.asarray(rows.targets), folds, seed)):
        for name, params in candidates.items():
            spent = time.monotonic() - began
            first = number == 0 and not cost
            late = len(scores[name]) < number or spent + cost.get(name, max(cost.values(), default=0.0)) > seconds
            if late and not first:
                continue
            start = time.monotonic()
            scores[name].append(_score(params, task, folder, rows, (train, held_out), seed, threads))
            cost[name] = max(cost.get(name, 0.0), time.monotonic() - start)
    name = _best(scores)
    reason = _reason(name, scores, task)
    return MethodChoice(name, candidates[name], {n: tuple(s) for n, s in scores.items()}, cost, reason)


def split_folds(targets: Array, folds: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Yield (train rows, held-out rows) of each fold, stratified; at most as many as the largest class has rows.

    Rows of a class with a single row are in train always. Raises DataError where no class has two rows.
    """
    counts = np.bincount(targets)
    rng = np.random.default_rng([seed, len(targets)])
    number = np.full(len(targets), -1)
    start = 0
    for target in np.flatnonzero(counts >= 2):
        own = rng.permutation(np.flatnonzero(targets == target))
        # Each class starts at another fold, so that folds have about the same number of rows.
        number[own] = (np.arange(len(own)) + start) % folds
        start += len(own)
    used = [fold for fold in range(folds) if (number == fold).any()]
    if len(used) < 2:
        raise DataError("no class has two rows, so that none can be held out", fix="give at least two rows a class")
    for fold in used:
        yield np.flatnonzero(number != fold), np.flatnonzero(number == fold)


def _score(
    params: ResolvedParams,
    task: Task,
    folder: Path,
    rows: TokenRows,
    split: tuple[Array, Array],
    seed: int,
    threads: int,
) -> float:
    """Train on rows of a fold and return the metric of the held-out ones."""
    train, held_out = rows.subset(split[0]), rows.subset(split[1])
    job = TrainingJob(
        task=task.fit(train.targets),
        folder=folder,
        train=train,
        valid=held_out,
        params=params.model_copy(update={"evaluate_every": NEVER, "profile": 0}),
        seed=seed,
        threads=threads or params.threads_of(1, 1),
    )
    job = replace(job, log=logging.getLogger("raypath.cross_validation"))
    return task.score(params.metric, start_training(job).run())


def _best(scores: Mapping[str, list[float]]) -> str:
    """Return the first candidate, or a later one that is better by more than a standard error of the difference."""
    best = next(iter(scores))
    for name, found in scores.items():
        shared = min(len(found), len(scores[best]))
        differences = np.array(found[:shared]) - np.array(scores[best][:shared])
        if not shared or name == best:
            continue
        error = float(differences.std(ddof=1) / np.sqrt(shared)) if shared > 1 else 0.0
        if differences.mean() > error:
            best = name
    return best


def _reason(best: str, scores: Mapping[str, list[float]], task: Task) -> str:
    shown = []
    for name, found in scores.items():
        if found:
            shown.append(f"{name} {abs(np.mean(found)):.3f} ({plural(len(found), 'fold')})")
    left_out = [name for name, found in scores.items() if not found]
    more = f"; no time for {', '.join(left_out)}" if left_out else ""
    return f"{best} by cross-validation on the training rows, mean {task.metric}: {', '.join(shown)}{more}"
