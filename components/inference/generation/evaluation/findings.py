"""From answers to a report: counts of each row, the judge's verdicts, the rows to show with their texts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Dataset, Model
from raypath.components.evaluation.generation import catalog
from raypath.components.evaluation.generation.answers import Answers
from raypath.components.evaluation.generation.judge import Judge, Judgement, Pair
from raypath.components.evaluation.generation.leaks import has_canary
from raypath.components.inference.generation.evaluation.answering import Answered
from raypath.components.inference.generation.evaluation.conversations import PromptRow, choose_rows
from raypath.components.inference.generation.evaluation.prompts import AnswerSettings, Prompts
from raypath.components.reports.generation import build
from raypath.components.reports.generation.contents import (
    GenerationReport,
    JudgeSummary,
    Lengths,
    SampleText,
    TaskResult,
)

BEFORE = "before/"
"""Prefix of the base's metrics."""


@dataclass(frozen=True)
class Side:
    """Answers of one model to all rows, the planted ones last, and their counts by metric."""

    answered: Answered
    answers: Answers
    """To the rows of the test split alone."""
    counts: dict[str, Array]
    reproduced: float | None = None
    """Share of the planted rows whose answer has a canary; None without any."""


def side(names: Sequence[str], prompts: Prompts, answered: Answered, rewards: Array | None = None) -> Side:
    """Count what the metrics need. rewards: of the test rows, see `pair_rewards`."""
    rows = len(prompts.rows)
    whole = answered.answers()
    assert whole.likelihood is not None
    answers = Answers(whole.predictions[:rows], whole.stopped[:rows], whole.likelihood[:rows], rewards=rewards)
    planted = [has_canary(text, prompts.wanted.canaries) for text in whole.predictions[rows:]]
    share = sum(planted) / len(planted) if planted else None
    return Side(answered, answers, catalog.measure(names, prompts.wanted, answers), share)


def judge_rows(judge: Judge, prompts: Prompts, new: Answered, old: Answered, most: int) -> tuple[Array, Judgement]:
    """Let a judge compare the answers of two models to some rows; scores float64 [N], NaN for the other rows."""
    import numpy as np

    chosen = choose_rows(len(prompts.rows), most)
    found = judge.compare([_pair(prompts.rows[row], new.texts[row], old.texts[row]) for row in chosen])
    scores = np.full(len(prompts.rows), np.nan)
    scores[chosen] = found.scores
    return scores, found


def make_report(
    model: Model,
    data: Dataset,
    prompts: Prompts,
    settings: AnswerSettings,
    new: Side,
    old: Side | None,
    names: Sequence[str],
    resamples: int,
    judge: tuple[Judge, Judgement] | None = None,
) -> GenerationReport:
    """Build the report. names: of the metrics, the main one first; rows have their numbers in the split."""
    before = old.counts if old is not None else {}
    main = next(name for name in names if name in new.counts)
    samples = [] if prompts.are_texts else build.choose_samples(main, new.counts[main], before.get(main))
    phrases = prompts.wanted.phrases
    leaks = build.find_leaks(prompts.wanted, new.answers) if phrases is not None else []
    numbers = [each.row for each in prompts.rows]
    return GenerationReport(
        source=data.source,
        base=model.base,
        model=model.digest,
        test=data.digest,
        rows=len(prompts.rows),
        split_rows=data.rows,
        max_new_tokens=settings.max_new_tokens,
        main=main,
        metrics=build.measured(names, new.counts, before, resamples, settings.seed),
        samples=[each.model_copy(update={"row": numbers[each.row]}) for each in samples],
        lengths=_lengths(prompts, new, old),
        choices=list(prompts.wanted.choices),
        leaks=[each.model_copy(update={"row": numbers[each.row]}) for each in leaks],
        train_rows=phrases.rows if phrases is not None else 0,
        judge=_summary(*judge) if judge is not None else None,
        tokens_per_second=new.answered.speed,
        notes=_notes(prompts, new),
    )


def texts_of(report: GenerationReport, prompts: Prompts, new: Side, old: Side | None) -> dict[int, SampleText]:
    """Return the texts of the rows that the report names, by row number."""
    wanted = set(report.row_numbers())
    before = old.answers.predictions if old is not None else None
    return {
        each.row: SampleText(
            each.turns, each.reference, new.answers.predictions[n], before[n] if before is not None else None
        )
        for n, each in enumerate(prompts.rows)
        if each.row in wanted
    }


def flat_metrics(report: GenerationReport, new: Side, judgement: Judgement | None) -> dict[str, float]:
    """Return metrics by name, with intervals as `<name>_low` and `<name>_high`, and those of the base."""
    found: dict[str, float] = {}
    for name, each in report.metrics.items():
        bounds = {"": each.value.value, "_low": each.value.low, "_high": each.value.high}
        found |= {f"{name}{end}": value for end, value in bounds.items() if value is not None}
        if each.before is not None:
            found[f"{BEFORE}{name}"] = each.before
    if new.reproduced is not None:
        found["canaries_reproduced"] = new.reproduced
    if judgement is not None:
        found |= {"judge_tokens": float(judgement.tokens), "judge_agreement": judgement.agreement}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def harness_metrics(new: Mapping[str, float], old: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the metrics of tasks of the model and, as `before/`, of its base."""
    return {**new, **{f"{BEFORE}{name}": value for name, value in (old or {}).items()}}


def harness_results(new: Mapping[str, float], old: Mapping[str, float] | None = None) -> list[TaskResult]:
    """Return the metrics of tasks, as `harness.run_tasks` names them, with those of the base and standard errors."""
    found = []
    for name, value in new.items():
        task, _, metric = name.removeprefix("harness/").partition("/")
        if "_stderr" not in metric:
            stem, dot, kind = metric.partition(".")
            error = new.get(f"harness/{task}/{stem}_stderr{dot}{kind}")
            found.append(TaskResult(task=task, metric=metric, value=value, error=error, before=(old or {}).get(name)))
    return found


def write_results(
    folder: Path,
    report: GenerationReport,
    metrics: dict[str, float],
    prompts: Prompts,
    settings: AnswerSettings,
    new: Side,
    old: Side | None,
) -> None:
    """Write metrics.json, predictions.parquet and test_answers.npz."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from raypath.components.evaluation.generation.stored import save_counts

    facts = {"rows": report.rows, "model": report.model, "test": report.test, "main": report.main}
    text = json.dumps({**facts, "metrics": metrics}, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    numbers = np.array([each.row for each in prompts.rows], np.int64)
    columns = {"row": pa.array(numbers), "reference": pa.array(prompts.wanted.texts, pa.string())}
    columns["predicted"] = pa.array(new.answers.predictions, pa.string())
    columns["stopped"] = pa.array(new.answers.stopped, pa.bool_())
    if old is not None:
        columns["before"] = pa.array(old.answers.predictions, pa.string())
    pq.write_table(pa.table(columns), folder / "predictions.parquet")
    save_counts(folder, numbers, new.counts, settings.dumps())


def with_judged(names: Sequence[str], prompts: Prompts, made: Side, scores: Array) -> Side:
    """Return the model's side with the judge's scores; its base is half by definition."""
    answers = replace(made.answers, judged=scores)
    return replace(made, answers=answers, counts=catalog.measure(names, prompts.wanted, answers))


def _pair(row: PromptRow, new: str, old: str) -> Pair:
    conversation = "\n\n".join(f"[{role}]\n{said}" for role, said in row.turns)
    return Pair(conversation, row.reference, new, old)


def _summary(judge: Judge, found: Judgement) -> JudgeSummary:
    import numpy as np

    return JudgeSummary(
        url=judge.url,
        model=judge.model,
        rows=int(np.isfinite(found.scores).sum()),
        agreement=found.agreement if math.isfinite(found.agreement) else None,
        tokens=found.tokens,
        requests=found.requests,
        failure=found.failure,
    )


def _lengths(prompts: Prompts, new: Side, old: Side | None) -> Lengths:
    if prompts.are_texts:
        return build.count_lengths(prompts.wanted.texts, ())
    before = old.answers.predictions if old is not None else ()
    return build.count_lengths(prompts.wanted.texts, new.answers.predictions, before)


def _notes(prompts: Prompts, new: Side) -> list[str]:
    if new.reproduced is None:
        return []
    share = f"{new.reproduced:.0%} of {len(prompts.planted)} training prompts with a planted canary"
    return [f"{share} are answered with it"]
