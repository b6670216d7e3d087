"""Precision selection: measure each precision on the validation split, choose the fastest that is exact enough.

The rows that calibrate int8 are not among those that are measured, unless there are too few of them.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.files import file_digest, link
from raypath.components.inference.backends.loader import Precision, missing_package, unsupported_reason
from raypath.components.inference.backends.openvino_export import CALIBRATION_ROWS, ExportError, export, quantize
from raypath.components.inference.backends.openvino_runtime import FILES
from raypath.components.inference.backends.precision_config import (
    Candidate,
    Choice,
    Table,
    machine,
    read_choice,
    write_choice,
)
from raypath.components.inference.backends.weight_sharing import WeightTable
from raypath.components.inference.batch.scoring import sample_rows
from raypath.components.inference.engine import Engine, model_type, resolve_precision
from raypath.components.models.metadata import read_metadata
from raypath.components.models.process import MODELS, import_large
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import load_task

ROWS, SPEED_ROWS, BATCH_ROWS, ROUNDS = 1_000, 256, 32, 3
"""Rows for the metrics, rows for the speed, batch size, rounds."""
ROUND_SECONDS = 2.0
"""Maximum seconds of fp32 in a round: a slow machine times fewer rows."""
GAIN = 1.05
"""Minimum speed relative to fp32."""
AGREEMENT = 0.995
"""Minimum share of rows with fp32's prediction; one row may always differ."""
RECIPES: tuple[dict[str, Any], ...] = ({"limit": 5e-4}, {"limit": 5e-4, "narrowing": False})
"""Of int8, the fastest first: the next is tried where one does not agree enough with fp32."""
Progress = Callable[[str], None]


def choose(table: Table, metric: str, tolerance: float, lower: bool = False) -> Precision:
    """Choose the fastest precision that is as exact as needed and at least 5% faster than fp32; else fp32.

    It is within `tolerance` of fp32's metric and predicts the same for `AGREEMENT` of the rows.

    tolerance: Absolute, in the unit of the metric. lower: A lower metric is better.
    """
    base = next(line for line in table if line.precision == "fp32")

    def good(line: Candidate) -> bool:
        loss = line.metrics[metric] - base.metrics[metric]
        worse = loss if lower else -loss
        exact = worse <= tolerance + 1e-9 and _agrees(line)  # allow for rounding
        return exact and line.rows_per_second >= GAIN * base.rows_per_second

    able = [line for line in table if not line.left_out and good(line)]
    fastest = max(able, key=lambda line: line.rows_per_second).precision if able else "fp32"
    return fastest  # type: ignore[return-value]  # those of earlier releases are not measured


def _agrees(line: Candidate) -> bool:
    return line.different <= max(1, round((1 - AGREEMENT) * line.rows))


@dataclass(frozen=True)
class Rows:
    """Rows of the validation split: token ids and targets of those that are measured, token ids that calibrate int8."""

    tokens: list[list[int]]
    targets: Array
    calibration: list[list[int]]

    @classmethod
    def sample(cls, folder: Path, data: Dataset) -> Rows:
        """Take rows spread over the split. With few rows those that calibrate are measured as well."""
        tokens, targets = sample_rows(folder, data, ROWS + CALIBRATION_ROWS)
        if len(tokens) < 4 * CALIBRATION_ROWS:
            return cls(tokens, targets, tokens)
        apart = set(np.linspace(0, len(tokens) - 1, CALIBRATION_ROWS).astype(int).tolist())
        measured = [row for row in range(len(tokens)) if row not in apart]
        return cls([tokens[row] for row in measured], targets[measured], [tokens[row] for row in sorted(apart)])


def measure(folder: Path, data: Dataset, workers: int, metric: str = "", report: Progress = lambda _: None) -> Table:
    """Measure each precision, fp32 first. Writes OpenVINO's files into `folder` if supported.

    Args:
        data: The validation split.
        workers: Number of threads.
        metric: Reported in addition to the task's own metric and the log loss.

    Raises DataError for a model with non-finite outputs.
    """
    task = load_task(read_metadata(folder))
    rows = Rows.sample(folder, data)
    engines: dict[Precision, Engine] = {}
    weights = WeightTable()
    lines: dict[Precision, Candidate] = {}
    exact = np.zeros(0)
    for precision in get_args(Precision):
        report(f"measuring {precision}")
        slow = precision == "bf16" and resolve_precision(folder, "plain", "cpu") != "bf16"
        why = "this CPU does not support it" if slow else _unavailable_reason(precision, folder, task)
        if why:
            lines[precision] = Candidate(precision=precision, left_out=why)
            continue
        for recipe in RECIPES if precision == "openvino-int8" else ({},):
            if recipe:
                quantize(folder, rows.calibration, workers, **recipe)
            engine, load = _opened(folder, precision, workers, weights)
            lines[precision], found = _measured(engine, precision, load, rows, metric, exact)
            if _agrees(lines[precision]):
                break
        if not lines[precision].left_out:
            engines[precision] = engine
        if precision == "fp32":
            exact = found
    if "fp32" not in engines:
        raise DataError("the model's outputs are NaN or infinite", fix="train it again with a lower learning rate")
    speeds = _speeds(engines, rows.tokens, report)
    return tuple(line.model_copy(update={"rows_per_second": speeds.get(name, 0.0)}) for name, line in lines.items())


def _opened(folder: Path, precision: Precision, threads: int, weights: WeightTable) -> tuple[Engine, float]:
    """Return a warm engine and the seconds it took, without the import of transformers."""
    import_large(*MODELS)
    start = time.perf_counter()
    engine = Engine(folder, threads, "cpu", precision=precision, weights=weights)
    engine.warm()
    return engine, time.perf_counter() - start


def prepare(
    source: Path,
    folder: Path,
    data: Dataset | None,
    workers: int,
    wanted: Precision | Literal["auto"],
    tolerance: float,
    metric: str = "",
    report: Progress = lambda _: None,
) -> Choice | None:
    """Write `folder`: a copy of the model folder `source` with precision.json and the files of the chosen precision.

    Returns None, without a folder, if there is no choice: auto without data, with a GPU, or for a model outside BERT's
    family. A folder that an earlier attempt completed is reused.

    Args:
        wanted: A precision, or auto, which measures on `data`.

    Raises ParamsError for a precision that this model does not support.
    """
    task = load_task(read_metadata(source))
    if wanted == "auto" and (data is None or not data.rows or not _has_alternatives(source, task)):
        return None
    existing = read_choice(folder)
    if existing is not None:
        return existing
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, copy_function=link)
    table: Table = ()
    if wanted == "auto":
        assert data is not None
        table = measure(folder, data, workers, metric, report)
        metric = metric if metric in table[0].metrics else task.metric
        picked = choose(table, metric, tolerance, task.is_lower(metric))
    else:
        picked = wanted
        why = _unavailable_reason(picked, folder, task)
        if picked == "openvino-int8" and not why:
            if data is None or not data.rows:
                why = "it needs rows of the validation split to calibrate"
            else:
                quantize(folder, Rows.sample(folder, data).calibration, workers, **RECIPES[0])
        if why:
            raise ParamsError(f"precision {picked} is not available: {why}", fix="leave registry.precision at auto")
    measured_on = machine("cpu", workers)
    choice = Choice(precision=picked, tolerance=tolerance, metric=metric, machine=measured_on, table=table)
    return _finalize(folder, choice)


def _finalize(folder: Path, choice: Choice) -> Choice:
    """Remove unused files, record the digest of the used one, and write precision.json last."""
    kept = FILES.get(choice.precision, ())
    for name in {name for names in FILES.values() for name in names} - set(kept):
        (folder / name).unlink(missing_ok=True)
    choice = choice.model_copy(update={"files": {name: file_digest(folder / name) for name in kept}})
    write_choice(folder, choice)
    return choice


def _has_alternatives(folder: Path, task: Task) -> bool:
    import torch

    return not torch.cuda.is_available() and not unsupported_reason("openvino-int8", task, model_type(folder))


def _unavailable_reason(precision: Precision, folder: Path, task: Task) -> str:
    """Return why a precision is not available; "" if it is, after the model was exported for it."""
    why = unsupported_reason(precision, task, model_type(folder)) or missing_package(precision)
    if why or precision not in FILES:
        return why
    try:
        if not (folder / FILES["openvino"][0]).exists():
            export(folder, task, folder)
    except ExportError as error:
        return f"the export failed ({error})"
    return ""


def _measured(
    engine: Engine, precision: Precision, load: float, rows: Rows, metric: str, exact: Array
) -> tuple[Candidate, Array]:
    """Measure an engine, without its speed; returns its outputs too. exact: fp32's outputs, or an empty array."""
    found = engine.record(rows.tokens)
    if not np.isfinite(found).all():
        return Candidate(precision=precision, left_out="its outputs are NaN or infinite"), found
    task, exact = engine.task, exact if exact.size else found
    decoded = task.decode(found)
    metrics = task.metrics(rows.targets, decoded)
    line = Candidate(
        precision=precision,
        metrics={name: metrics[name] for name in (metric, task.metric, "log_loss") if name in metrics},
        difference=float(np.abs(found - exact).max()),
        rows=len(found),
        different=task.agrees(decoded, task, task.decode(exact)).count(False),
        load_seconds=round(load, 3),
    )
    return line, found


def _speeds(
    engines: Mapping[Precision, Engine], tokens: Sequence[Sequence[int]], report: Progress
) -> dict[Precision, float]:
    """Return rows per second: the median of rounds in which the engines take turns, so that load affects all alike."""
    first = _seconds(engines["fp32"], tokens[:BATCH_ROWS])
    count = int(min(SPEED_ROWS, max(BATCH_ROWS, ROUND_SECONDS * len(tokens[:BATCH_ROWS]) / first)))
    few = tokens[:: max(1, len(tokens) // count)][:count]
    taken: dict[Precision, list[float]] = {name: [] for name in engines}
    for number in range(1, ROUNDS + 1):
        report(f"timing, round {number} of {ROUNDS}")
        for name, engine in engines.items():
            taken[name].append(_seconds(engine, few))
    return {name: round(len(few) / statistics.median(seconds), 1) for name, seconds in taken.items()}


def _seconds(engine: Engine, tokens: Sequence[Sequence[int]]) -> float:
    start = time.perf_counter()
    for row in range(0, len(tokens), BATCH_ROWS):
        engine.record(tokens[row : row + BATCH_ROWS])
    return time.perf_counter() - start
