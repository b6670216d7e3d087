"""Evaluate a model on a test split: metrics with confidence intervals, predictions by row, plots, a report.

Texts are streamed; only one row of logits per text stays in memory, and the texts of a few dozen rows of the report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset, Model, Report
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import ParamsError
from raypath.components.core.params import Params

if TYPE_CHECKING:
    from raypath.components.inference.engine import Engine
    from raypath.components.reports.evaluation.outcome import Outcome
    from raypath.components.tasks.base import Task


CLASSES_TRACKED = 50
"""Most classes whose metrics are logged to MLflow; above, they are only in metrics.json."""
VALID_ROWS = (64, 2_000)
"""Least and most validation rows that are scored."""
FEW_ROWS = 30
"""Fewest rows of a test split that cause no warning."""


class EvaluateParams(Params):
    """Settings of `evaluate`."""

    resamples: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Bootstrap resamples of the 95% confidence intervals; 0 disables them."""
    plots: bool = True
    """Draw the task's plots, such as a confusion matrix."""
    texts: bool = False
    """Show texts in the report that is logged to MLflow as well. Without it that report has counts and row numbers, and
    only the one in the step's own files has texts."""
    membership: bool = False
    """Attack the model by membership inference: how well rows of train are told from those of test, as metrics. They
    are computed from rows of train, and are not covered by differential privacy."""


@component(version=1, by_shard=True)
def evaluate(
    ctx: Context,
    model: Model,
    data: Dataset,
    params: EvaluateParams,
    valid: Dataset | None = None,
    train: Dataset | None = None,
) -> Report:
    """Evaluate `model` on `data`; write metrics.json, predictions.parquet, plots/*.png, report.html and report.json.

    test_outputs.npy has the model's outputs by row, float32 [N, outputs], for later comparisons.

    Metrics are the task's, with 95% percentile bootstrap intervals of the main ones, such as `accuracy_low` and
    `accuracy_high`.

    valid: The validation split, of which some rows give the report a temperature of the probabilities.

    train: The training split, for `params.membership`.

    Raises DataError for an empty split, a missing column, or a label that the model does not have.
    """
    from raypath.components.inference.batch.scoring import save_outputs, score
    from raypath.components.inference.evaluation_engine import evaluation_engine
    from raypath.components.models.metadata import read_metadata
    from raypath.components.reports.evaluation.outcome import Outcome
    from raypath.components.tasks.catalog import load_task

    ctx.track.dataset("test", data.digest, data.source, context="test", rows=data.rows)
    folder = Path(model.uri)
    task = load_task(read_metadata(folder))
    engine = evaluation_engine(folder, ctx.workers, data.rows, ctx.scratch)
    targets, recorded = score(
        folder, data, ctx.workers, lambda done, total: ctx.report(done, total, "rows scored"), engine
    )
    decoded = task.decode(recorded)
    metrics = task.metrics(targets, decoded) | task.intervals(targets, decoded, params.resamples, ctx.seed)
    if task.metadata.privacy is not None:
        metrics |= task.metadata.privacy.metrics()
    if params.membership:
        metrics |= _membership(ctx, folder, engine, train, data)
    for warning in _warnings(task, targets, decoded):
        ctx.log.warning("%s", warning)
    _write_metrics(ctx.out, metrics, model, data, len(targets))
    _write_predictions(ctx.out, task, targets, decoded)
    save_outputs(ctx.out, recorded)
    ctx.track.metrics(_tracked(metrics, model.labels))
    if params.plots:
        ctx.report(data.rows, data.rows, "drawing")
        for path in _draw(ctx.out / "plots", task.plots(targets, decoded, metrics)):
            ctx.track.artifact(path, "plots")
    _report(
        ctx, model, data, Outcome(task, targets, decoded, _valid_rows(folder, engine, data, valid)), metrics, params
    )
    return Report(model=model, data=data, metrics=metrics)


def _membership(ctx: Context, folder: Path, engine: Engine, train: Dataset | None, data: Dataset) -> dict[str, float]:
    """Return the metrics of membership inference. Raises ParamsError without the training split."""
    from raypath.components.inference.batch.membership import membership_metrics

    if train is None:
        raise ParamsError(
            "evaluate.membership needs the training split",
            fix="use the workflow text_classification, or pass it as train",
        )
    return membership_metrics(folder, engine, train, data, ctx.workers, ctx.seed)


def _valid_rows(folder: Path, engine: Engine, data: Dataset, valid: Dataset | None) -> tuple[Array, Array] | None:
    """Score rows of the validation split: a twelfth of the number of test rows, within VALID_ROWS."""
    from raypath.components.inference.batch.scoring import sample_rows

    if valid is None or not valid.rows or engine.task.plain not in ("label", "labels"):
        return None
    least, most = VALID_ROWS
    tokens, targets = sample_rows(folder, valid, min(max(data.rows // 12, least), most))
    return targets, engine.task.decode(engine.record(tokens, seed=0))


def _report(
    ctx: Context, model: Model, data: Dataset, outcome: Outcome, metrics: dict[str, float], params: EvaluateParams
) -> None:
    """Build, write and log the report; an unexpected error is logged as a warning."""
    from raypath.components.reports.evaluation.build import build_report
    from raypath.components.reports.evaluation.columns import texts_of
    from raypath.components.reports.evaluation.render import write_report
    from raypath.components.reports.page.files import publish, warn_on_failure

    ctx.report(data.rows, data.rows, "writing the report")
    with warn_on_failure(ctx):
        report = build_report(model, data, outcome, metrics)
        publish(ctx, write_report, report, texts_of(data, report.row_numbers()), params.texts)


def _warnings(task: Task, targets: Array, decoded: Array) -> list[str]:
    found = task.warnings(targets, decoded)
    if len(targets) < FEW_ROWS:
        what = f"test has only {len(targets)} row{'' if len(targets) == 1 else 's'}: its metrics are a rough estimate"
        found.append(f"{what}, and their intervals too narrow; add rows, or use a larger -s split.test=")
    return found


def _write_metrics(out: Path, metrics: dict[str, float], model: Model, data: Dataset, rows: int) -> None:
    report = {"rows": rows, "model": model.digest, "test": data.digest, "labels": model.labels, "metrics": metrics}
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (out / "metrics.json").write_text(text + "\n", encoding="utf-8")


def _write_predictions(out: Path, task: Task, targets: Array, decoded: Array) -> None:
    """Write predictions.parquet: row, label, predicted and other columns of the task except `scores`; never the
    text."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    answered = task.columns(decoded)
    answered.pop("scores", None)
    columns = {"row": pa.array(np.arange(len(targets))), **task.target_columns(targets), **answered}
    pq.write_table(pa.table(columns), out / "predictions.parquet")


def _tracked(metrics: dict[str, float], labels: tuple[str, ...]) -> dict[str, float]:
    """Rename metrics to keys that MLflow accepts: a label with other characters becomes `class_<number>`.

    Another label of this name, such as class_1 itself, keeps its metrics: underscores are added until the key is free.
    """
    plain = {label for label in labels if re.fullmatch(r"[\w\-][\w.\- ]{0,199}", label, re.ASCII)}
    names = {label: label if label in plain else _free_name(f"class_{n}", plain) for n, label in enumerate(labels)}
    found = {}
    for key, value in metrics.items():
        kind, slash, label = key.partition("/")
        if slash and len(labels) > CLASSES_TRACKED:
            continue
        found[f"{kind}/{names[label]}" if slash else kind] = value
    return found


def _free_name(name: str, taken: Collection[str]) -> str:
    return name if name not in taken else _free_name(f"{name}_", taken)


def _draw(folder: Path, figures: dict[str, Any]) -> list[Path]:
    from raypath.components.evaluation.plots import style

    if figures:
        folder.mkdir()
    return [style.save(figure, folder / f"{name}.png") for name, figure in figures.items()]
