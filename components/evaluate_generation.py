"""Evaluate a language model by its responses to held-out prompts, before and after training: metrics with intervals,
and a report.

A prompt has all messages before the last response. The model and the one that training started from get the same
prompts, so that each change has a paired interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.artifacts import Dataset, Model, Report
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError, RaypathError
from raypath.components.evaluation.generation.params import EvaluateGenerationParams, open_judge

if TYPE_CHECKING:
    from raypath.components.evaluation.generation.judge import Judge, Judgement
    from raypath.components.inference.generation.evaluation.answering import Answered
    from raypath.components.inference.generation.evaluation.findings import Side
    from raypath.components.inference.generation.evaluation.harness import HarnessTasks
    from raypath.components.inference.generation.evaluation.prompts import AnswerSettings, Prompts
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.reports.generation.contents import GenerationReport

FEW_ROWS = 30
"""Fewest rows that cause no warning."""


@component(version=1, by_shard=True)
def evaluate_generation(
    ctx: Context,
    model: Model,
    data: Dataset,
    params: EvaluateGenerationParams,
    train: Dataset | None = None,
    start: Model | None = None,
) -> Report:
    """Evaluate `model` on conversations; write metrics.json, predictions.parquet, plots, report.html and report.json.

    test_answers.npz has the counts of each row and metric, without texts, for later comparisons. Metrics have 95%
    bootstrap intervals, `<name>_low` and `<name>_high`; those of the base are `before/<name>`.

    Args:
        train: The training split, in whose answers copied passages and canaries are looked for.
        start: The model that the training started from; without it, the base.

    Rows that are texts without prompts have loss, perplexity and accuracy alone.
    Raises DataError for a split without responses, ParamsError for an unknown metric or a wrong schema, Unavailable for
    a judge that does not respond.
    """
    from raypath.components.evaluation.generation import leaks
    from raypath.components.inference.generation.evaluation import findings
    from raypath.components.inference.generation.evaluation.prompts import load_prompts
    from raypath.components.inference.generation.evaluation.rewards import pair_rewards
    from raypath.components.reports.generation.render import write_report
    from raypath.components.reports.page.files import publish, warn_on_failure

    leaks.check_canaries(params.canaries)
    ctx.track.dataset("test", data.digest, data.source, context="test", rows=data.rows)
    judge, tasks, settings = _open_judge(params), _tasks(model, params), _settings(ctx, model, params)
    prompts = load_prompts(data, settings, train, params.canaries)
    _check(ctx, prompts, data, params)
    names = _names(ctx, model, prompts, params)

    def measured(folder: Path, who: str) -> Side:
        answered = _answer(ctx, folder, model, prompts, settings, who)
        rewards = pair_rewards(folder, data, [each.row for each in prompts.rows], settings.objective, ctx.workers)
        return findings.side(names, prompts, answered, rewards)

    new = measured(Path(model.uri), "")
    base = _base(ctx, model, start) if params.before else None
    old = measured(base, "base: ") if base else None
    judgement = None
    if judge is not None and old is not None:
        new, judgement = _judged(ctx, judge, names, prompts, new, old, params.judge_rows)
    verdict = (judge, judgement) if judge is not None and judgement is not None else None
    report = findings.make_report(model, data, prompts, settings, new, old, names, params.resamples, verdict)
    metrics = findings.flat_metrics(report, new, judgement)
    if tasks is not None:
        report, more = _with_harness(ctx, report, tasks, Path(model.uri), base)
        metrics |= more
    ctx.report(1, 1, "writing the report")
    findings.write_results(ctx.out, report, metrics, prompts, settings, new, old)
    ctx.track.metrics(metrics)
    if params.plots:
        _draw(ctx, report)
    with warn_on_failure(ctx):
        publish(ctx, write_report, report, findings.texts_of(report, prompts, new, old), params.texts)
    return Report(model=model, data=data, metrics=metrics)


def _names(ctx: Context, model: Model, prompts: Prompts, params: EvaluateGenerationParams) -> list[str]:
    """Return the names of the metrics, the main one first. Raises ParamsError for those that texts do not have."""
    from raypath.components.evaluation.generation import catalog
    from raypath.components.models.language_models import TEXT_TO_TEXT

    if not prompts.are_texts:
        chosen = catalog.translations() if model.task == TEXT_TO_TEXT else catalog.choose(prompts.wanted)
        more = (*catalog.PREFERENCE, *catalog.LIKELIHOOD, *catalog.BEHAVIOUR)
        return list(dict.fromkeys([*(params.metrics or chosen), *more]))
    wrong = [name for name in params.metrics if name not in catalog.LIKELIHOOD]
    if wrong or params.judge:
        what = f"setting {'metrics' if wrong else 'judge'} needs responses, and the test rows are texts without prompts"
        raise ParamsError(what, fix=f"leave it out; {', '.join(catalog.LIKELIHOOD)} are evaluated")
    ctx.log.info("the test rows are texts without prompts: %s are evaluated", ", ".join(catalog.LIKELIHOOD))
    return list(dict.fromkeys([*params.metrics, *catalog.LIKELIHOOD]))


def _open_judge(params: EvaluateGenerationParams) -> Judge | None:
    """Return the judge, after it has responded: before the work of generating. Raises ParamsError or Unavailable."""
    judge = open_judge(params)
    if judge is not None:
        judge.check()
    return judge


def _tasks(model: Model, params: EvaluateGenerationParams) -> HarnessTasks | None:
    """Return the tasks of lm-evaluation-harness, checked before the work of generating."""
    from raypath.components.inference.generation.evaluation.harness import HarnessTasks

    if not params.harness:
        return None
    tasks = HarnessTasks(params.harness, params.harness_tasks, params.harness_rows, params.harness_chat)
    tasks.check(model.task)
    return tasks


def _with_harness(
    ctx: Context, report: GenerationReport, tasks: HarnessTasks, folder: Path, base: Path | None
) -> tuple[GenerationReport, dict[str, float]]:
    """Run the tasks on a model and its base; returns the report with their results, and their metrics."""
    from raypath.components.inference.generation.evaluation import findings

    results = [tasks.run(each, folder, ctx.workers, ctx.seed) for each in (folder, *([base] if base else []))]
    return report.model_copy(update={"harness": findings.harness_results(*results)}), findings.harness_metrics(*results)


def _settings(ctx: Context, model: Model, params: EvaluateGenerationParams) -> AnswerSettings:
    from raypath.components.evaluation.generation.structure import load_schema
    from raypath.components.inference.generation.evaluation.prompts import AnswerSettings
    from raypath.components.models.metadata import read_metadata

    objective = read_metadata(Path(model.uri)).objective or None
    schema = load_schema(params.json_schema) if params.json_schema else None
    return AnswerSettings(
        params.rows, params.max_new_tokens, params.temperature, params.top_p, ctx.seed, schema, objective
    )


def _check(ctx: Context, prompts: Prompts, data: Dataset, params: EvaluateGenerationParams) -> None:
    """Say which rows are answered. Raises DataError if there are none."""
    count = len(prompts.rows)
    if not count:
        what = f"none of the {data.rows:,} test rows has a response"
        raise DataError(what, fix="give conversations, or a larger -s split.test=")
    if params.rows and data.rows > params.rows:
        ctx.log.info("%d of %d test rows are evaluated; -s evaluate.rows=0 takes all", count, data.rows)
    if count < FEW_ROWS:
        ctx.log.warning("only %d test rows are evaluated: metrics are a rough estimate; add rows", count)
    if params.canaries and not prompts.planted:
        ctx.log.warning("no training response has one of evaluate.canaries; plant them before `read`")


def _base(ctx: Context, model: Model, start: Model | None) -> Path | None:
    """Return the folder of the model that the training started from; None, with a warning, if it is not there."""
    from raypath.components.models.adapters import adapter_base, is_adapter
    from raypath.components.models.base_models import base_folder

    if start is not None:
        return Path(start.uri)
    try:
        trained = Path(model.uri)
        return adapter_base(trained) if is_adapter(trained) else base_folder(model.base)
    except RaypathError as error:
        ctx.log.warning("the base is not evaluated: %s", error)
        return None


def _answer(ctx: Context, folder: Path, model: Model, prompts: Prompts, settings: AnswerSettings, who: str) -> Answered:
    """Answer all rows; answers are kept in scratch, so that another attempt does not generate them again."""
    from raypath.components.inference.generation.evaluation.answering import answer
    from raypath.components.models.metadata import read_metadata

    trained = Path(model.uri)
    metadata: ModelMetadata = read_metadata(trained)
    kept = ctx.scratch / f"answers-{'base' if who else 'model'}.json"
    return answer(
        folder,
        trained,
        metadata,
        [*prompts.rows, *prompts.planted],
        settings.sampling,
        ctx.workers,
        kept,
        lambda done, total, what: ctx.report(done, total, f"{who}{what}"),
    )


def _judged(
    ctx: Context, judge: Judge, names: Sequence[str], prompts: Prompts, new: Side, old: Side, rows: int
) -> tuple[Side, Judgement]:
    """Let the judge compare some rows. Its scores are added unless it failed on more than half of them."""
    import numpy as np

    from raypath.components.inference.generation.evaluation.findings import judge_rows, with_judged

    ctx.report(0, 1, "asking the judge")
    scores, found = judge_rows(judge, prompts, new.answered, old.answered, rows)
    failed = int(np.isnan(found.scores).sum())
    if failed:
        ctx.log.warning("the judge did not compare %d of %d rows: %s", failed, len(found.scores), found.failure)
    return (new if 2 * failed > len(found.scores) else with_judged(names, prompts, new, scores)), found


def _draw(ctx: Context, report: GenerationReport) -> None:
    from raypath.components.evaluation.plots import generation, style

    found = report.lengths
    counts = {"references": found.reference, "model": found.answer, "base": found.before}
    counts = {name: each for name, each in counts.items() if each}
    folder = ctx.out / "plots"
    folder.mkdir()
    ctx.track.artifact(style.save(generation.lengths(found.edges, counts), folder / "lengths.png"), "plots")
