"""Precision selection: measure each precision on the validation split, choose the fastest within the tolerance."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.files import file_digest, link
from raypath.components.inference.backends.loader import Precision, unsupported_reason
from raypath.components.inference.backends.onnx_export import export, quantize_onnx
from raypath.components.inference.backends.onnx_runtime import FILES
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
from raypath.components.inference.engine import Engine, resolve_precision
from raypath.components.models.metadata import read_metadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import load_task

ROWS, SPEED_ROWS, BATCH_ROWS, ROUNDS = 1_000, 256, 32, 3
"""Rows for the metrics, rows for the speed, batch size, rounds."""
ROUND_SECONDS = 2.0
"""Maximum seconds of fp32 in a round: a slow machine times fewer rows."""
GAIN = 1.05
"""Minimum speed relative to fp32."""
Progress = Callable[[str], None]


def choose(table: Table, metric: str, tolerance: float, lower: bool = False) -> Precision:
    """Choose the fastest precision within `tolerance` of fp32's metric that is at least 5% faster; else fp32.

    tolerance: Absolute, in the unit of the metric. lower: A lower metric is better.
    """
    base = next(line for line in table if line.precision == "fp32")

    def good(line: Candidate) -> bool:
        loss = line.metrics[metric] - base.metrics[metric]
        worse = loss if lower else -loss
        # Allow for rounding.
        return worse <= tolerance + 1e-9 and line.rows_per_second >= GAIN * base.rows_per_second

    able = [line for line in table if not line.left_out and good(line)]
    return max(able, key=lambda line: line.rows_per_second).precision if able else "fp32"


def measure(folder: Path, data: Dataset, workers: int, metric: str = "", report: Progress = lambda _: None) -> Table:
    """Measure each precision, fp32 first. Writes model.onnx and model.int8.onnx into `folder` if supported.

    Args:
        data: The validation split.
        workers: Number of threads.
        metric: Reported in addition to the task's own metric and the log loss.

    Raises DataError for a model with non-finite outputs.
    """
    task = load_task(read_metadata(folder))
    rows = sample_rows(folder, data, ROWS)
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
        engine, load = _opened(folder, precision, workers, weights)
        lines[precision], found = _measured(engine, precision, load, rows, metric, exact)
        if not lines[precision].left_out:
            engines[precision] = engine
        if precision == "fp32":
            exact = found
    if "fp32" not in engines:
        raise DataError("the model's outputs are NaN or infinite", fix="train it again with a lower learning rate")
    speeds = _speeds(engines, rows[0], report)
    return tuple(line.model_copy(update={"rows_per_second": speeds.get(name, 0.0)}) for name, line in lines.items())


def _opened(folder: Path, precision: Precision, threads: int, weights: WeightTable) -> tuple[Engine, float]:
    """Return a warm engine and the seconds it took, without the import of transformers."""
    import transformers  # noqa: F401

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
        if why:
            raise ParamsError(f"precision {picked} is not available: {why}", fix="leave register.precision at auto")
    measured_on = machine("cpu", workers)
    choice = Choice(precision=picked, tolerance=tolerance, metric=metric, machine=measured_on, table=table)
    return _finalize(folder, choice)


def _finalize(folder: Path, choice: Choice) -> Choice:
    """Remove unused files, record the digest of the used one, and write precision.json last."""
    name = FILES.get(choice.precision)
    for other in set(FILES.values()) - {name}:
        (folder / other).unlink(missing_ok=True)
    if name:
        choice = choice.model_copy(update={"files": {name: file_digest(folder / name)}})
    write_choice(folder, choice)
    return choice


def _has_alternatives(folder: Path, task: Task) -> bool:
    import torch

    kind = _model_type(folder)
    return not torch.cuda.is_available() and not all(
        unsupported_reason(each, task, kind) for each in ("int8", "onnx-int8")
    )


def _unavailable_reason(precision: Precision, folder: Path, task: Task) -> str:
    """Return why a precision is not available; "" if it is, after its file was written."""
    why = unsupported_reason(precision, task, _model_type(folder))
    if why or precision not in FILES:
        return why
    import torch

    try:
        if not (folder / FILES["onnx"]).exists():
            export(folder, task, folder)
    except torch.onnx.OnnxExporterError as error:
        return f"the export failed ({str(error).splitlines()[0]})"
    if precision == "onnx-int8":
        quantize_onnx(folder)
    return ""


def _model_type(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type"))


def _measured(
    engine: Engine, precision: Precision, load: float, rows: tuple[list[list[int]], Array], metric: str, exact: Array
) -> tuple[Candidate, Array]:
    """Measure an engine, without its speed; returns its outputs too. exact: fp32's outputs, or an empty array."""
    tokens, targets = rows
    found = engine.record(tokens)
    if not np.isfinite(found).all():
        return Candidate(precision=precision, left_out="its outputs are NaN or infinite"), found
    metrics = engine.task.metrics(targets, engine.task.decode(found))
    kept = {name: metrics[name] for name in (metric, engine.task.metric, "log_loss") if name in metrics}
    difference = float(np.abs(found - exact).max()) if exact.size else 0.0
    return Candidate(precision=precision, metrics=kept, difference=difference, load_seconds=round(load, 3)), found


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
