"""Register a model in MLflow, and make it the champion only if it beats the champion on the same test split.

A version opens with `mlflow.pyfunc.load_model("models:/NAME@champion")`; its artifact folder `artifacts/model` opens
with transformers' `from_pretrained`. The decision for a version is final: running the step again, for instance
after a rollback, moves no alias.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BeforeValidator, Field

from raypath.components.core.artifacts import Dataset, Model, Release, Report
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError, Unavailable
from raypath.components.core.params import Params
from raypath.components.tracking import http, login
from raypath.components.tracking.tags import (
    BASE,
    DECIDED,
    KEY,
    LABELS,
    METRIC_PREFIX,
    MODEL_DIGEST,
    PRECISION,
    PRECISION_SPEED,
    REASON,
    RUN,
    TASK,
    TEST_DIGEST,
    VERSION,
)

if TYPE_CHECKING:
    from raypath.components.tasks.base import Task


NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


def _check_name(name: Any) -> Any:
    if isinstance(name, str) and not NAME.fullmatch(name):
        raise ValueError("wanted 1 to 100 letters, digits, '.', '_' or '-', of which the first is a letter or digit")
    return name


class RegisterParams(Params):
    """Name, deciding metric and precision of a version."""

    name: Annotated[str, BeforeValidator(_check_name), Field(json_schema_extra={"pattern": NAME.pattern})] = "model"
    """Name in the model registry."""
    better_on: str | None = None
    """Metric of the report that has to be strictly better than the champion's; None takes the task's main metric."""
    precision: Literal["auto", "fp32", "bf16", "int8", "onnx", "onnx-int8"] = "auto"
    """Precision of inference. auto measures each on the validation split and takes the fastest within `tolerance`
    (BERT's family on a CPU); onnx needs the extra of that name."""
    tolerance: Annotated[float, Field(ge=0)] = 0.005
    """Allowed loss of the metric on the validation split compared to fp32, absolute; 0.005 is half a point of F1."""


def _alive(ctx: Context, release: Release) -> bool:
    """Return True if the registry still has the version, and the champion is still the one of the release.

    Uses the REST API, since importing MLflow's client is slow. Raises Unavailable if MLflow does not respond.
    """
    found = _get(ctx.tracking.uri, "model-versions/get", name=release.name, version=str(release.version))
    tags = {tag["key"]: tag["value"] for tag in found.get("model_version", {}).get("tags", [])}
    own = DECIDED in tags and ctx.key in ("", tags.get(KEY))
    champion = _get(ctx.tracking.uri, "registered-models/alias", name=release.name, alias="champion")
    return own and champion.get("model_version", {}).get("version") == str(release.serving)


@component(version=1, alive=_alive)
def register(
    ctx: Context, model: Model, report: Report, params: RegisterParams, valid: Dataset | None = None
) -> Release:
    """Register `model` as the next version of `params.name`; champion when better than the champion, else challenger.

    valid: The validation split, to select the precision; without it inference uses bf16 if supported, else fp32. The
    comparison uses the report's metrics, whatever the precision.

    Version tags: precision and its speed, task, number of labels, digests of the model and the test split, the report's
    metrics and the reason. Registered once for each `ctx.key`. A champion that was evaluated on another test split is
    evaluated on this one.

    The version is signed (`registry/signing`), and so is its promotion.

    Raises Unavailable if MLflow does not respond, ParamsError for a metric that the report lacks, DataError for a
    champion that is not signed or was altered, UserError without a key to sign with.
    """
    from raypath.components.inference.golden_examples import record
    from raypath.components.registry import aliases
    from raypath.components.registry import client as registry
    from raypath.components.registry.publish import find_published, publish

    _check_metric(report, _metric(report, params))
    with registry.mlflow_client(ctx.tracking.uri) as client:
        tags = _tags(ctx, model, report)
        if not find_published(client, params.name, ctx.key, ctx.signing):
            model, more = _with_precision(ctx, model, params, _metric(report, params), valid)
            tags |= more
        ctx.report(1, 3, "uploading")
        version = publish(client, ctx, model, params.name, tags, lambda folder: record(folder, ctx.workers))
        ctx.report(2, 3, "comparing with the champion")
        alias, reason = _decide(ctx, client, report, params, version)
        champion = aliases.trusted_champion(client, params.name, ctx.signing)
        ctx.track.tags({VERSION: f"{params.name}/{version}", REASON: reason})
    (ctx.out / "release.json").write_text(json.dumps({"name": params.name, "version": version, "reason": reason}))
    return Release(
        name=params.name,
        version=version,
        alias=alias,
        reason=reason,
        serving=champion.version if champion else version,
        task=model.task,
        metrics=_main(report),
    )


def _with_precision(
    ctx: Context, model: Model, params: RegisterParams, metric: str, valid: Dataset | None
) -> tuple[Model, dict[str, str]]:
    """Select the precision; returns the model with the files it needs, and the version's tags.

    The measurements are stored with the version (precision.json) and with the step's run.
    """
    if params.precision == "auto" and valid is None:
        return model, {}
    from raypath.components.inference.backends.precision_config import PRECISION as PRECISION_FILE
    from raypath.components.inference.precision_selection import prepare

    folder = ctx.scratch / "model"
    wanted, tolerance = params.precision, params.tolerance
    choice = prepare(
        Path(model.uri), folder, valid, ctx.workers, wanted, tolerance, metric, lambda note: ctx.report(0, 3, note)
    )
    if choice is None:
        return model, {}
    ctx.track.artifact(folder / PRECISION_FILE)
    tags = {PRECISION: choice.precision, PRECISION_SPEED: str(choice.rows_per_second)}
    return model.model_copy(update={"uri": str(folder)}), tags


def _metric(report: Report, params: RegisterParams) -> str:
    return params.better_on or _kind(report).metric


def _kind(report: Report) -> type[Task]:
    from raypath.components.tasks.catalog import task_type

    return task_type(report.model.task, report.model.label_kind)


def _check_metric(report: Report, metric: str) -> None:
    if metric not in report.metrics:
        near = difflib.get_close_matches(metric, report.metrics, n=1, cutoff=0.4)
        known = f"did you mean {near[0]}?" if near else f"it has {', '.join(_main(report))}"
        raise ParamsError(f"setting better_on got {metric}, which the report lacks", fix=known)


def _main(report: Report) -> dict[str, float]:
    """Return the metrics of the whole test split, without those per class."""
    return {name: value for name, value in report.metrics.items() if "/" not in name}


def _tags(ctx: Context, model: Model, report: Report) -> dict[str, str]:
    facts = {
        KEY: ctx.key,
        RUN: ctx.tracking.parent,
        TASK: model.task,
        LABELS: str(len(model.labels)),
        BASE: model.base,
        MODEL_DIGEST: model.digest,
        TEST_DIGEST: report.data.digest,
    }
    return facts | {f"{METRIC_PREFIX}{name}": repr(value) for name, value in _main(report).items()}


def _decide(ctx: Context, client: Any, report: Report, params: RegisterParams, version: int) -> tuple[str, str]:
    """Decide alias and reason; an earlier attempt's decision is in the version's tags."""
    from raypath.components.registry import aliases
    from raypath.components.registry.tags import CHALLENGER, CHAMPION

    tags = client.get_model_version(params.name, str(version)).tags
    if DECIDED in tags:
        return tags[DECIDED], tags[REASON]
    champion = aliases.trusted_champion(client, params.name, ctx.signing)
    if champion is not None and champion.version == version:
        # Interrupted between moving the alias and recording it.
        alias, reason = CHAMPION, tags.get(REASON, "")
    else:
        wins, reason = _compare(ctx, champion, report, params)
        alias = CHAMPION if wins else CHALLENGER
        client.set_model_version_tag(params.name, str(version), REASON, reason)
        if wins:
            aliases.set_champion(client, params.name, version, ctx.signing)
        else:
            client.set_registered_model_alias(params.name, CHALLENGER, str(version))
    client.set_model_version_tag(params.name, str(version), DECIDED, alias)
    return alias, reason


def _compare(ctx: Context, champion: Any, report: Report, params: RegisterParams) -> tuple[bool, str]:
    """Compare with the champion; returns True if the new model wins, and the reason."""
    metric = _metric(report, params)
    if champion is None:
        return True, f"{metric} {report.metrics[metric]:.4f}; there was no champion"
    rival = f"version {champion.version}"
    same_part = champion.tags.get(TEST_DIGEST) == report.data.digest
    if same_part and METRIC_PREFIX + metric in champion.tags:
        old, note = float(champion.tags[METRIC_PREFIX + metric]), ""
    else:
        try:
            old, note = _measure(ctx, champion, report, metric), ", evaluated on this test split"
        except DataError as error:
            return False, f"not comparable with {rival}: {error.what}"
    new = report.metrics[metric]
    lower = _kind(report).is_lower(metric)
    wins = new < old if lower else new > old
    sign = {True: "<", False: ">="}[wins] if lower else {True: ">", False: "<="}[wins]
    return wins, f"{metric} {_format(new, old)} {sign} {_format(old, new)} of {rival}{note}"


def _format(value: float, other: float) -> str:
    """Format with four digits, or more if needed to distinguish two values."""
    digits = next((d for d in (4, 6, 9) if f"{value:.{d}f}" != f"{other:.{d}f}"), 4)
    return f"{value:.{digits}f}"


def _measure(ctx: Context, champion: Any, report: Report, metric: str) -> float:
    """Evaluate the champion on this report's test split. Raises DataError if the models are not comparable."""
    from raypath.components.inference.batch.scoring import score
    from raypath.components.models.metadata import read_metadata
    from raypath.components.registry.cache import cache_folder
    from raypath.components.registry.client import resolve
    from raypath.components.tasks.catalog import check_task, load_task

    _, _, folder = resolve(ctx.tracking.uri, f"models:/{champion.name}/{champion.version}", cache_folder(), ctx.signing)
    metadata = read_metadata(folder)
    own = read_metadata(Path(report.model.uri))
    check_task(metadata, [own.task, *(column.kind for column in own.columns)])
    task = load_task(metadata)
    if type(task) is not _kind(report) or set(task.metadata.labels) != set(report.model.labels):
        raise DataError("it has another task or other labels")
    targets, recorded = score(folder, report.data, ctx.workers)
    return task.metrics(targets, task.decode(recorded))[metric]


def _get(uri: str, call: str, **query: str) -> dict[str, Any]:
    """Send a GET request to MLflow's REST API; {} for what MLflow does not have. Raises Unavailable."""
    url = f"{uri.rstrip('/')}/api/2.0/mlflow/{call}?{urlencode(query)}"
    try:
        found = http.send("GET", url, headers=login.headers(uri), timeout=5.0, follow_redirects=True)
    except ConnectionError:
        raise Unavailable(f"MLflow does not respond at {uri or 'no URI'}", fix="start it with `raypath up`") from None
    if found.status in (400, 404):
        return {}
    content = found.json()
    if not found.ok or not isinstance(content, dict):
        fix = login.FIX if found.status == 401 else "see the MLflow server's log"
        raise Unavailable(f"MLflow at {uri} returned status {found.status}", fix=fix)
    return content
