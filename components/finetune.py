"""Fine-tune a base model on tokenized rows; an interrupted step resumes from its last checkpoint."""

from __future__ import annotations

from raypath.components.core.artifacts import Dataset, Model, Settings
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.models.heads.stored_head import head_warning
from raypath.components.tasks.catalog import load_task
from raypath.components.training import trial_weights
from raypath.components.training.compatibility import check_base, check_method, metadata_for
from raypath.components.training.params import FinetuneParams, ResolvedParams
from raypath.components.training.ray_train import fit

__all__ = ["FinetuneParams", "ResolvedParams", "finetune"]


@component(version=1, by_shard=True)
def finetune(
    ctx: Context,
    train: Dataset,
    valid: Dataset,
    best: Settings | None,
    params: FinetuneParams,
    start: Model | None = None,
) -> Model:
    """Train on `train`; select the best weights by `params.metric` on `valid`.

    train, valid: preprocessed Datasets; best: settings that `configure` chose or `tune` found, which replace those in
    params, and its weights if they are those of this training. Settings that are "auto" after that are chosen from
    `train`. start: a model to start from instead of `params.base`, such as that of `pretrain`.
    Returns a transformers folder (safetensors, tokenizer, raypath.json). Raises DataError for an invalid base, or a NaN
    or infinite loss.
    """
    from raypath.components.configuration.learning_curve import report_learning_curve
    from raypath.components.configuration.resolve import auto_names, resolve
    from raypath.components.training.differential_privacy.budget import spend
    from raypath.components.training.differential_privacy.checks import check_private

    check_private(params)
    chosen = resolve(ctx, params, best, (train, valid), start)
    folder = check_base(chosen, train, start)
    used = {name: getattr(chosen, name) for name in auto_names(params)} | (best.values if best is not None else {})
    ctx.track.params({f"used.{name}": value for name, value in used.items()})
    metadata, splits = metadata_for(chosen, train, folder, start), (train, valid)
    task = load_task(metadata, chosen.objective)
    check_method(task, chosen)
    metadata = spend(ctx, chosen, metadata, train, start)
    if warning := head_warning(task.auto, folder, metadata.labels):
        ctx.log.warning("%s", warning)
    kept = trial_weights.matching_weights(ctx, best, chosen, metadata, folder, splits)
    model = fit(ctx, folder, metadata, splits, chosen, kept, best.seconds if best is not None else 0.0)
    if metadata.privacy is None:
        report_learning_curve(ctx, folder, splits, metadata)
    return model if start is None or not start.version else model.model_copy(update={"version": start.version})
