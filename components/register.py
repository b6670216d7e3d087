"""Register a model in MLflow, and make it the champion if the same test rows show that it is better.

A version opens with `mlflow.pyfunc.load_model("models:/NAME@champion")`; its artifact folder `artifacts/model` opens
with transformers' `from_pretrained`. The decision for a version is final: running the step again, for instance
after a rollback, moves no alias.
"""

from __future__ import annotations

import difflib
import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from raypath.components.core.artifacts import Dataset, Model, Release, Report
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import ParamsError
from raypath.components.core.params import Params
from raypath.components.tracking.rest import get
from raypath.components.tracking.tags import (
    BASE,
    DATA,
    DECIDED,
    KEY,
    LABELS,
    METRIC_PREFIX,
    MODEL_DIGEST,
    PRECISION,
    PRECISION_SPEED,
    PRIVACY,
    REASON,
    RUN,
    START,
    TASK,
    TEST_DIGEST,
    VERSION,
)

if TYPE_CHECKING:
    from raypath.components.models.metadata import PrivacyRecord
    from raypath.components.registry.evidence import Rules
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
    """Metric of the report that is compared with the champion's; None takes the task's main metric, or for a
    language model that of its report."""
    confidence: Annotated[float, Field(ge=0.5, le=1)] = 0.9
    """Chance of being better than the champion, on the same test rows, from which a version is promoted. At 0.9 at most
    one of ten equal models is."""
    margin: Annotated[float, Field(ge=0)] = 0.01
    """Loss in the metric's own unit, such as 0.01 for a point of F1, that a version which is cheaper to serve may not
    have: it is promoted if the 95% interval of the difference excludes it."""
    slice_margin: Annotated[float, Field(ge=0)] = 0.05
    """Allowed fall on a slice of the test rows: of the recall of a class or, for a text length or a category, of the
    share of right rows; 0.05 is five points. For numbers in standard deviations (mae) or variances of the target. Other
    than noise: the slice has to be worse with `confidence`."""
    beat_baseline: bool = False
    """Without a champion: promote a version only if its metric is better than that of a baseline on the same test rows,
    which is for a language model the model that training started from (equal ones are told apart by their loss), and
    for a classifier the most frequent class. Without it the first version is promoted; the reason has both numbers."""
    precision: Literal["auto", "fp32", "bf16", "openvino", "openvino-int8", "vllm"] = "auto"
    """Precision of inference. auto measures each on the validation split and takes the fastest within `tolerance`
    (BERT's family and decoders of Llama's kind on a CPU, language models on a GPU); openvino needs the extra of that
    name, for language models the extra generate; vllm, for language models alone, the extra llm."""
    tolerance: Annotated[float, Field(ge=0)] = 0.005
    """Allowed loss of the metric on the validation split compared to fp32, absolute; 0.005 is half a point of F1. For a
    language model the allowed rise of the perplexity compared to PyTorch, relative; 0.005 is half a percent."""


def _alive(ctx: Context, release: Release) -> bool:
    """Return True if the registry still has the version, and the champion is still the one of the release.

    Uses the REST API, since importing MLflow's client is slow. Raises Unavailable if MLflow does not respond.
    """
    found = get(ctx.tracking.uri, "model-versions/get", name=release.name, version=str(release.version))
    tags = {tag["key"]: tag["value"] for tag in found.get("model_version", {}).get("tags", [])}
    own = DECIDED in tags and ctx.key in ("", tags.get(KEY))
    champion = get(ctx.tracking.uri, "registered-models/alias", name=release.name, alias="champion")
    return own and int(champion.get("model_version", {}).get("version", 0)) == release.serving


@component(version=1, alive=_alive, by_shard=True)
def register(
    ctx: Context, model: Model, report: Report, params: RegisterParams, valid: Dataset | None = None
) -> Release:
    """Register `model` as the next version of `params.name`, as champion or as challenger.

    It becomes champion if it is better than the champion with a chance of at least `params.confidence`, or cheaper to
    serve and not worse by `params.margin`, and falls on no slice by more than `params.slice_margin`
    (`registry/evidence.py`). The comparison is paired, on the rows of the report's test split: outputs by row are
    stored with a version, and a champion that was evaluated on other rows is evaluated on these. One that cannot be,
    for instance with other labels, stays. Without a champion it is compared with a
    baseline (`params.beat_baseline`).

    valid: The validation split, to select the precision; without it inference uses bf16 if supported, else fp32. The
    comparison uses the report's precision, whatever is selected.

    Version tags: the deciding metric, the reason, and as JSON (`registry/tags.py`) precision and its speed, task,
    number of labels, digests of the model and the test split, and the report's metrics. Registered once for each
    `ctx.key`.

    The version is signed (`registry/signing`), and so is its promotion.

    Raises Unavailable if MLflow does not respond, ParamsError for a metric that the report lacks, DataError for a
    champion that is not signed or was altered, UserError without a key to sign with.
    """
    from raypath.components.inference.batch.comparison import Contest
    from raypath.components.registry import aliases
    from raypath.components.registry import client as registry
    from raypath.components.registry.gate import resolve_alias
    from raypath.components.registry.presentation import show_decision
    from raypath.components.registry.publish import find_published, publish
    from raypath.components.registry.tags import CHAMPION, pack

    _check_metric(report, _metric(report, params))
    with registry.mlflow_client(ctx.tracking.uri) as client:
        tags = _tags(ctx, model, report)
        if not find_published(client, params.name, ctx.key, ctx.signing):
            model, more = _with_precision(ctx, model, params, _metric(report, params), valid)
            tags |= more
        ctx.report(1, 3, "uploading")
        version = publish(
            client, ctx, model, params.name, pack(tags, _metric(report, params)), partial(_complete, ctx, report)
        )
        ctx.report(2, 3, "comparing with the champion")
        contest = Contest(ctx, report, _metric(report, params), _rules(params))
        alias, reason = resolve_alias(client, params.name, version, ctx.signing, contest.decide)
        if contest.decision is None:
            contest.resume(client, params.name, version, alias == CHAMPION, reason)
        show_decision(client, params.name, version, alias, reason)
        champion = aliases.trusted_champion(client, params.name, ctx.signing)
        ctx.track.tags({VERSION: f"{params.name}/{version}", REASON: reason})
    (ctx.out / "release.json").write_text(json.dumps({"name": params.name, "version": version, "reason": reason}))
    return Release(
        name=params.name,
        version=version,
        alias=alias,
        reason=reason,
        serving=champion.version if champion else 0,
        chance=contest.decision.chance if contest.decision else 0.0,
        task=model.task,
        metrics=_main(report),
    )


def _with_precision(
    ctx: Context, model: Model, params: RegisterParams, metric: str, valid: Dataset | None
) -> tuple[Model, dict[str, str]]:
    """Select the precision; returns the model with the files it needs, and the version's tags.

    The measurements are stored with the version (precision.json) and with the step's run; of a language model
    generation.json.
    """
    if params.precision == "auto" and (valid is None or _privacy(model) is not None):
        return model, {}
    if _kind(model).generates_text:
        return _with_engine(ctx, model, params, valid)
    from raypath.components.inference.backends.precision_config import PRECISION as PRECISION_FILE
    from raypath.components.inference.precision_selection import prepare

    folder = ctx.scratch / "model"
    wanted, tolerance = params.precision, params.tolerance
    if wanted == "vllm":
        raise ParamsError("setting precision got vllm, which is for language models", fix="leave it at auto")
    choice = prepare(
        Path(model.uri), folder, valid, ctx.workers, wanted, tolerance, metric, lambda note: ctx.report(0, 3, note)
    )
    if choice is None:
        return model, {}
    ctx.track.artifact(folder / PRECISION_FILE)
    tags = {PRECISION: choice.precision, PRECISION_SPEED: str(choice.rows_per_second)}
    return model.model_copy(update={"uri": str(folder)}), tags


def _privacy(model: Model) -> PrivacyRecord | None:
    """Return the privacy of a model: its precision is not chosen, nor its int8 calibrated, by validation rows."""
    from raypath.components.models.metadata import METADATA_FILE, read_metadata

    return read_metadata(Path(model.uri)).privacy if (Path(model.uri) / METADATA_FILE).is_file() else None


def _with_engine(
    ctx: Context, model: Model, params: RegisterParams, valid: Dataset | None
) -> tuple[Model, dict[str, str]]:
    """Select the engine of a language model; as `_with_precision`, with generation.json."""
    from raypath.components.inference.generation.selection.choice import FILE
    from raypath.components.inference.generation.selection.measuring import prepare_engine

    folder = ctx.scratch / "model"
    wanted, tolerance = params.precision, params.tolerance
    choice = prepare_engine(
        Path(model.uri), folder, valid, ctx.workers, wanted, tolerance, lambda note: ctx.report(0, 3, note)
    )
    if choice is None:
        return model, {}
    ctx.track.artifact(folder / FILE)
    tags = {PRECISION: choice.engine, PRECISION_SPEED: str(choice.tokens_per_second)}
    return model.model_copy(update={"uri": str(folder)}), tags


def _metric(report: Report, params: RegisterParams) -> str:
    kind = _kind(report.model)
    if params.better_on or not kind.generates_text:
        return params.better_on or kind.metric
    # The main metric of answers follows from the references, and is the first that has an interval.
    return next((name for name in _main(report) if f"{name}_low" in report.metrics), kind.metric)


def _kind(model: Model) -> type[Task]:
    from raypath.components.tasks.catalog import task_type

    return task_type(model.task, model.label_kind)


def _rules(params: RegisterParams) -> Rules:
    from raypath.components.registry.evidence import Rules

    return Rules(params.confidence, params.margin, params.slice_margin, params.beat_baseline)


def _check_metric(report: Report, metric: str) -> None:
    if metric not in report.metrics:
        near = difflib.get_close_matches(metric, report.metrics, n=1, cutoff=0.4)
        known = f"did you mean {near[0]}?" if near else f"it has {', '.join(_main(report))}"
        raise ParamsError(f"setting better_on got {metric}, which the report lacks", fix=known)
    if _kind(report.model).generates_text:
        from raypath.components.evaluation.generation import catalog

        if metric in catalog.METRICS and catalog.METRICS[metric].neutral:
            fix = "a version is neither better nor worse by it; name another metric of the report"
            raise ParamsError(f"setting better_on got {metric}", fix=fix)


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
        DATA: f"{report.data.rows:,} rows of {report.data.source}" if report.data.source else "",
    }
    if (privacy := _privacy(model)) is not None:
        facts[PRIVACY] = privacy.describe()
    if model.version:
        facts[START] = model.version
    return facts | {f"{METRIC_PREFIX}{name}": repr(value) for name, value in _main(report).items()}


def _complete(ctx: Context, report: Report, folder: Path) -> None:
    """Add to a model's folder what is signed with it: golden examples, and outputs for the test split.

    The next version is compared by these outputs if its test split is the same. Of a language model's answers the
    counts by row are kept, without texts.
    """
    from raypath.components.core.files import link
    from raypath.components.evaluation.generation.stored import ANSWERS
    from raypath.components.inference import golden_examples
    from raypath.components.inference.batch.scoring import OUTPUTS
    from raypath.components.inference.generation import golden_answers

    kind = _kind(report.model)
    if kind.generates_text and kind.served:
        golden_answers.record(folder)
    elif not kind.generates_text:
        golden_examples.record(folder, ctx.workers)
    for name in (OUTPUTS, ANSWERS):
        (folder / name).unlink(missing_ok=True)  # of another test split, where the model comes from the registry
        outputs = ctx.input(report) / name
        if report.uri and outputs.is_file():
            link(str(outputs), str(folder / name))
