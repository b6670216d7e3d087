"""Checks of settings that a private training does not have, or that would reveal rows beside its bound."""

from __future__ import annotations

from raypath.components.core.errors import ParamsError
from raypath.components.core.params import AUTO
from raypath.components.training.differential_privacy.accountant import check_installed
from raypath.components.training.params import FinetuneParams

TASKS = ("text_classification", "regression")
"""Tasks, one label or a set of labels a text, and numbers, whose loss is a sum over rows."""


def check_private(params: FinetuneParams) -> None:
    """Raise ParamsError for settings that differential privacy does not allow; do nothing without it."""
    privacy = params.privacy
    if not privacy.enabled:
        if privacy != type(privacy)():
            raise ParamsError("finetune.privacy has no bound", fix="set finetune.privacy.epsilon, such as 8")
        return
    if params.task not in TASKS:
        what = f"differential privacy is for encoders with a head; finetune.task={params.task} has none"
        raise ParamsError(what, fix="leave finetune.privacy out, and train on rows that may be known")
    if params.method not in (AUTO, "head") and not (params.method == "full" and params.lora):
        what = f"differential privacy trains a head or adapters, not all weights (finetune.method={params.method})"
        raise ParamsError(what, fix="set finetune.method=head or finetune.lora=8")
    if params.method == "head" and params.lora:
        raise ParamsError("finetune.method=head has no adapters", fix="leave finetune.method or finetune.lora out")
    for name, instead in _rejected(params).items():
        raise ParamsError(f"finetune.{name} does not go with finetune.privacy", fix=instead)
    if params.task == "regression" and not _has_bounds(params):
        what = "mean and scale of the targets would reveal rows; differential privacy takes their bounds instead"
        raise ParamsError(what, fix="set finetune.privacy.target_low and target_high, known without the rows")
    check_installed()


def _rejected(params: FinetuneParams) -> dict[str, str]:
    """Return the settings that do not go with privacy, and what to do instead."""
    out, objective = "leave it out", params.objective
    found = {
        "shard": (params.shard, out),
        "load_in_4bit": (params.load_in_4bit, out),
        "dora": (params.dora, "use plain LoRA"),
        "profile": (params.profile, out),
        "batch_tokens": (params.batch_tokens != AUTO, "set finetune.privacy.batch_rows"),
        "patience": (params.patience not in (AUTO, 0), "leave it out: the last weights are kept"),
        "evaluate_every": (params.evaluate_every, "leave it out: the model is evaluated once, at the end"),
        "minutes": (params.minutes is not None, "set finetune.epochs"),
        "objective.class_weights": (objective.class_weights != "none", "set it to none: it counts the rows of classes"),
        "objective.threshold": (objective.threshold != "none", "set it to none: it is chosen by validation rows"),
    }
    return {name: instead for name, (wrong, instead) in found.items() if wrong}


def _has_bounds(params: FinetuneParams) -> bool:
    low, high = params.privacy.target_low, params.privacy.target_high
    return low is not None and high is not None and low < high
