"""Which precision a version answers in: each is measured on the validation part, the fastest that is as good wins."""

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
from raypath.components.inference.batch.scoring import sample_rows
from raypath.components.inference.engine import Engine, resolve_precision
from raypath.components.models.metadata import read_metadata
from raypath.components.tasks.base import Task
from raypath.components.tasks.catalog import load_task

ROWS, SPEED_ROWS, TOGETHER, ROUNDS = 1_000, 256, 32, 3
"""Rows for the metrics and for the speed, rows that are asked at a time, rounds."""
ROUND_SECONDS = 2.0
"""Of fp32 in a round, at most: a slow machine times fewer rows."""
GAIN = 1.05
"""How much faster than fp32 it has to be."""
Progress = Callable[[str], None]


def choose(table: Table, metric: str, tolerance: float, lower: bool = False) -> Precision:
    """The fastest whose metric is not worse than fp32's by more than `tolerance`, and at least 5% faster; else fp32.

    tolerance: absolute, in the metric's own unit. lower: less of it is better.
    """
    base = next(line for line in table if line.precision == "fp32")

    def good(line: Candidate) -> bool:
        loss = line.metrics[metric] - base.metrics[metric]
        worse = loss if lower else -loss
        # A little more than the tolerance is rounding.
        return worse <= tolerance + 1e-9 and line.rows_per_second >= GAIN * base.rows_per_second

    able = [line for line in table if not line.left_out and good(line)]
    return max(able, key=lambda line: line.rows_per_second).precision if able else "fp32"


def measure(folder: Path, data: Dataset, workers: int, metric: str = "", tell: Progress = lambda _: None) -> Table:
    """A line for each precision, fp32 first. Writes model.onnx and model.int8.onnx into `folder` where it can.

    data: the validation part. workers: threads. metric: kept beside the task's own and the log loss.
    Raises DataError for a model that answers with NaN.
    """
    task = load_task(read_metadata(folder))
    rows = sample_rows(folder, data, ROWS)
    engines: dict[Precision, Engine] = {}
    lines: dict[Precision, Candidate] = {}
    exact = np.zeros(0)
    for precision in get_args(Precision):
        tell(f"measuring {precision}")
        slow = precision == "bf16" and resolve_precision(folder, "plain", "cpu") != "bf16"
        why = "this CPU does not multiply in it" if slow else _left_out(precision, folder, task)
        if why:
            lines[precision] = Candidate(precision=precision, left_out=why)
            continue
        engine, load = _opened(folder, precision, workers)
        lines[precision], found = _measured(engine, precision, load, rows, metric, exact)
        if not lines[precision].left_out:
            engines[precision] = engine
        if precision == "fp32":
            exact = found
    if "fp32" not in engines:
        raise DataError("the model answers with NaN or infinity", fix="train it again with a lower learning rate")
    tell("timing")
    speeds = _speeds(engines, rows[0])
    return tuple(line.model_copy(update={"rows_per_second": speeds.get(name, 0.0)}) for name, line in lines.items())


def _opened(folder: Path, precision: Precision, threads: int) -> tuple[Engine, float]:
    """An engine that has answered once, and the seconds it took; transformers is imported before."""
    import transformers  # noqa: F401

    start = time.perf_counter()
    engine = Engine(folder, threads, "cpu", precision=precision)
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
    tell: Progress = lambda _: None,
) -> Choice | None:
    """Make `folder`: a copy of the model folder `source` with precision.json and the file that its precision needs.

    wanted: a precision, or auto, which measures on `data`. None, and no folder, where there is nothing to choose: auto
    without data, with a GPU, or for a model that is no encoder of BERT's family. A folder that an earlier attempt
    finished is taken as it is. Raises ParamsError for a precision that this model cannot have.
    """
    task = load_task(read_metadata(source))
    if wanted == "auto" and (data is None or not data.rows or not _has_choice(source, task)):
        return None
    there = read_choice(folder)
    if there is not None:
        return there
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, copy_function=link)
    table: Table = ()
    if wanted == "auto":
        assert data is not None
        table = measure(folder, data, workers, metric, tell)
        metric = metric if metric in table[0].metrics else task.metric
        picked = choose(table, metric, tolerance, task.is_lower(metric))
    else:
        picked = wanted
        why = _left_out(picked, folder, task)
        if why:
            raise ParamsError(f"precision {picked} cannot be had: {why}", fix="leave registry.precision at auto")
    here = machine("cpu", workers)
    choice = Choice(precision=picked, tolerance=tolerance, metric=metric, machine=here, table=table)
    return _finished(folder, choice)


def _finished(folder: Path, choice: Choice) -> Choice:
    """Remove what the choice does not need, note the digest of what it does, and write precision.json, last of all."""
    name = FILES.get(choice.precision)
    for other in set(FILES.values()) - {name}:
        (folder / other).unlink(missing_ok=True)
    if name:
        choice = choice.model_copy(update={"files": {name: file_digest(folder / name)}})
    write_choice(folder, choice)
    return choice


def _has_choice(folder: Path, task: Task) -> bool:
    import torch

    kind = _model_type(folder)
    return not torch.cuda.is_available() and not all(
        unsupported_reason(each, task, kind) for each in ("int8", "onnx-int8")
    )


def _left_out(precision: Precision, folder: Path, task: Task) -> str:
    """Why a precision cannot be had, "" when it can; its file is then made."""
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
    """The line of an engine but for its speed, and what it recorded; exact: what fp32 recorded, or nothing."""
    tokens, targets = rows
    found = engine.record(tokens)
    if not np.isfinite(found).all():
        return Candidate(precision=precision, left_out="it answers with NaN or infinity"), found
    figures = engine.task.metrics(targets, engine.task.decode(found))
    kept = {name: figures[name] for name in (metric, engine.task.metric, "log_loss") if name in figures}
    difference = float(np.abs(found - exact).max()) if exact.size else 0.0
    return Candidate(precision=precision, metrics=kept, difference=difference, load_seconds=round(load, 3)), found


def _speeds(engines: Mapping[Precision, Engine], tokens: Sequence[Sequence[int]]) -> dict[Precision, float]:
    """Rows a second of each: the median of rounds in which they take turns, so that a busy moment hits them alike."""
    first = _seconds(engines["fp32"], tokens[:TOGETHER])
    count = int(min(SPEED_ROWS, max(TOGETHER, ROUND_SECONDS * len(tokens[:TOGETHER]) / first)))
    few = tokens[:: max(1, len(tokens) // count)][:count]
    taken: dict[Precision, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            taken[name].append(_seconds(engine, few))
    return {name: round(len(few) / statistics.median(seconds), 1) for name, seconds in taken.items()}


def _seconds(engine: Engine, tokens: Sequence[Sequence[int]]) -> float:
    start = time.perf_counter()
    for row in range(0, len(tokens), TOGETHER):
        engine.record(tokens[row : row + TOGETHER])
    return time.perf_counter() - start
