"""Choice of the method for few rows a class: cross-validation of a full training, contrastive learning and a probe."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from raypath.components.configuration.facts import DataFacts, Sample
from raypath.components.configuration.rules import Choice
from raypath.components.core.artifacts import Values
from raypath.components.core.context import Context
from raypath.components.core.errors import UserError
from raypath.components.core.params import AUTO
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.compatibility import check_method
from raypath.components.training.params import FinetuneParams, ResolvedParams

FEW_ROWS, MOST_ROWS = 64, 320
"""Mean number of rows a class, and of rows in all, up to which methods are compared: with more, the comparison takes
many times as long as a full training."""
SECONDS = 60.0
"""Time of the comparison."""
CONTRASTIVE: Values = {"method": "contrastive", "epochs": 2, "lr": 1e-4, "batch_tokens": 2048, "patience": 0}
"""Settings of contrastive learning, as in its benchmark (tests/bench/few_rows.py)."""
PROBE: Values = {"method": "linear_probe"}


def has_few_rows(facts: DataFacts) -> bool:
    """Return True if methods are worth a comparison."""
    return 0 < facts.rows <= min(FEW_ROWS * facts.classes, MOST_ROWS)


def choose_for_few_rows(
    ctx: Context,
    params: FinetuneParams,
    resolved: ResolvedParams,
    facts: DataFacts,
    sample: Sample,
    place: tuple[Path, ModelMetadata],
    max_length: int,
) -> Choice:
    """Return the method, and its settings, that scores best in cross-validation on train; none for a full training.

    resolved: settings of the full training; place: folder of the base, and metadata of the model. It applies to rows
    with one class each, of which there are few, and only where `finetune.method` is auto.
    """
    if params.method != AUTO or not has_few_rows(facts):
        return Choice()
    from raypath.components.training.few_shot.choose_method import choose_method

    folder, metadata = place
    found: dict[str, Values] = {}
    for values in (CONTRASTIVE, PROBE):
        found[str(values["method"])] = {n: v for n, v in values.items() if getattr(params, n) == AUTO}
    candidates = {"full": resolved, **{name: resolved.override(values) for name, values in found.items()}}
    rows = sample.rows(max_length)
    logging.getLogger("raypath.cross_validation").setLevel(logging.WARNING)
    try:
        task = load_task(metadata, params.objective)
        check_method(task, candidates["linear_probe"])
        limit = min(SECONDS, 30.0 * (params.minutes or np.inf))
        choice = choose_method(candidates, task, folder, rows, ctx.seed, params.threads_of(ctx.workers, 1), limit)
    except UserError as error:
        ctx.log.debug("methods are not compared: %s", error.what)
        return Choice()
    return Choice(found.get(choice.name, {}), (choice.reason,))
