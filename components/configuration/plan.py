"""Plan of a training from the rows before `preprocess`: settings, the reasons for them, and the time it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raypath.components.configuration.base import choose_base
from raypath.components.configuration.budget import fit_budget
from raypath.components.configuration.facts import DataFacts, sample_splits
from raypath.components.configuration.methods import choose_for_few_rows
from raypath.components.configuration.resolve import auto_names, resolved
from raypath.components.configuration.rules import choose, choose_max_length
from raypath.components.core.artifacts import Splits, Values
from raypath.components.core.context import Context
from raypath.components.core.params import AUTO
from raypath.components.data.wording import plural
from raypath.components.models.base_models import base_folder, resolved_base
from raypath.components.training.compatibility import metadata_for
from raypath.components.training.differential_privacy.defaults import MAX_LENGTH, private_values
from raypath.components.training.params import CONTRASTIVE_PASSES, FinetuneParams, ResolvedParams

if TYPE_CHECKING:
    from pathlib import Path

    from raypath.components.configuration.speed import Speed
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.training.batches.token_dataset import TokenDataset


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of a training. chosen: names of those that were "auto"; seconds: estimate."""

    params: ResolvedParams
    chosen: tuple[str, ...]
    max_length: int
    seconds: float
    facts: DataFacts
    reasons: tuple[str, ...]


def plan_training(
    ctx: Context, splits: Splits, params: FinetuneParams, form: str, max_length: int | str
) -> TrainingPlan:
    """Choose all settings that are "auto", and estimate the time of the training.

    form, max_length: settings of `preprocess`; max_length may be "auto". Raises DataError for a base that cannot be
    loaded.
    """
    if params.privacy.enabled:
        return _plan_private(splits, params, max_length)
    base, reason = choose_base(ctx, params.base, splits.train)
    folder = base_folder(base)
    facts, sample = sample_splits(splits, folder, form, ctx.seed)
    length = choose_max_length(facts.lengths, facts.limit, facts.source) if max_length == AUTO else int(max_length)
    values: Values = {"base": base} if params.base == AUTO else {}
    reasons = [reason] if reason else []
    choice = choose(params, facts, length)
    values, reasons = values | choice.values, [*reasons, *choice.reasons]
    found = resolved(params, values)
    metadata = metadata_for(found, sample.train.model_copy(update={"max_length": length}), folder)
    few = choose_for_few_rows(ctx, params, found, facts, sample, (folder, metadata), length)
    values, reasons = values | few.values, [*reasons, *few.reasons]
    found = resolved(params, values)
    speed = _speed(ctx, folder, metadata, found, sample.rows(length))
    budget = fit_budget(params, found, facts, speed)
    if budget.values:
        values, reasons = values | budget.values, [*reasons, *budget.reasons]
        found = resolved(params, values)
        speed = _speed(ctx, folder, metadata, found, sample.rows(length)) if found.method == "full" else speed
    names = tuple(auto_names(params))
    return TrainingPlan(
        found, names, length, round(training_seconds(ctx, found, facts, speed), 1), facts, tuple(reasons)
    )


def _plan_private(splits: Splits, params: FinetuneParams, max_length: int | str) -> TrainingPlan:
    """Choose settings for a private training, without a look at the rows."""
    from raypath.components.data.tokenization.tokenizer import model_max_length

    base = resolved_base(params.base)
    limit = model_max_length(base_folder(base))
    length = min(MAX_LENGTH, limit or MAX_LENGTH) if max_length == AUTO else int(max_length)
    names = tuple(auto_names(params))
    found = resolved(params, private_values(params, base))
    facts = DataFacts(splits.train.rows, splits.valid.rows, (), np.zeros(0, np.int64), limit, 0)
    return TrainingPlan(found, names, length, 0.0, facts, (f"max_length={length}, whatever the rows are",))


def _speed(ctx: Context, folder: Path, metadata: ModelMetadata, params: ResolvedParams, rows: TokenDataset) -> Speed:
    """Measure training steps of the whole model, on a sample of rows."""
    from raypath.components.configuration.speed import measure_speed

    whole = params.model_copy(update={"method": "full"})
    return measure_speed(folder, metadata, whole, rows, ctx.seed, params.threads_of(ctx.workers, 1))


def training_seconds(ctx: Context, params: ResolvedParams, facts: DataFacts, speed: Speed) -> float:
    """Estimate the time of the training, of a head that of its features."""
    if params.method in ("head", "linear_probe"):
        return speed.load + (facts.rows + facts.valid_rows) * speed.row_tokens * speed.valid
    # Processes on one machine's cores share them; each GPU adds its own speed.
    share = 1.0 / max(1, params.workers) if ctx.gpus else 1.0
    if params.method == "contrastive":
        share *= CONTRASTIVE_PASSES
    return speed.seconds(facts.rows, facts.valid_rows, params.epochs, share)


def describe(plan: TrainingPlan) -> str:
    """Describe the plan in a line: the settings chosen, why, and the time of the training."""
    facts, parts = plan.facts, []
    if plan.params.privacy.enabled:
        settings = ", ".join(f"{name}={getattr(plan.params, name)}" for name in plan.chosen if name != "base")
        return "; ".join([f"private training: {settings}", *plan.reasons])
    shown = {name: getattr(plan.params, name) for name in plan.chosen if name != "base"}
    if shown:
        settings = ", ".join(f"{name}={value}" for name, value in shown.items())
        kinds = f" of {plural(facts.classes, 'class', 'classes')}" if facts.classes else ""
        tokens = facts.tokens(plan.max_length)
        parts.append(f"{settings} for {plural(facts.rows, 'row')}{kinds}, {tokens:.0f} tokens each")
    parts += plan.reasons
    stops = "at most " if plan.params.patience and plan.params.method == "full" else ""
    return "; ".join([*parts, f"fine-tuning takes {stops}{duration(plan.seconds)}"])


def duration(seconds: float) -> str:
    """Format a time for people: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
