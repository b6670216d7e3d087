"""Settings of a training: those that the user set, those that `configure` or `tune` chose, and rules for the rest."""

from __future__ import annotations

from raypath.components.configuration.decoder_rules import is_decoder
from raypath.components.configuration.facts import facts_of
from raypath.components.configuration.rules import choose
from raypath.components.core.artifacts import Dataset, Model, Settings, Values
from raypath.components.core.context import Context
from raypath.components.core.params import AUTO
from raypath.components.models.base_models import base_folder, resolved_base
from raypath.components.models.conversion.packaged import CHAT
from raypath.components.training.differential_privacy.defaults import private_values
from raypath.components.training.params import FinetuneParams, ResolvedParams


def auto_names(params: FinetuneParams) -> list[str]:
    """Return the names of the settings that are "auto" and that a training needs, in the order of the fields."""
    return [name for name in CHOSEN if getattr(params, name) == AUTO]


CHOSEN = ("base", "epochs", "lr", "warmup", "batch_tokens", "frozen_layers", "patience", "method")
"""Settings that may be chosen from the data."""


def resolved(params: FinetuneParams, values: Values) -> ResolvedParams:
    """Return the params with `values`. Raises ParamsError if a setting is still "auto"."""
    return ResolvedParams.model_validate_json(params.override(values).model_dump_json())


def resolve(
    ctx: Context,
    params: FinetuneParams,
    settings: Settings | None,
    splits: tuple[Dataset, Dataset],
    start: Model | None = None,
) -> ResolvedParams:
    """Return the settings of a training on `splits` (train, valid), after `preprocess`.

    settings: those that `configure` or `tune` chose, which replace those in `params`. What is "auto" after that is
    chosen here from the rows, and logged. start: the model that training starts from instead of the base.
    """
    train, valid = splits
    values = dict(settings.values) if settings is not None else {}
    known = params.override(values)
    left = auto_names(known)
    if not left:
        return resolved(params, values)
    base = CHAT if is_decoder(known.task) and known.base == AUTO else resolved_base(known.base)
    if known.privacy.enabled:
        return resolved(known, private_values(known, base))
    facts = facts_of(train, valid.rows, base_folder(base if start is None else start.uri), ctx.seed)
    choice = choose(known, facts, train.max_length or max(1, int(facts.lengths.max(initial=1))))
    found = resolved(known, {"base": base, **choice.values} if known.base == AUTO else choice.values)
    ctx.log.info("chosen from the data: %s", ", ".join(f"{name}={getattr(found, name)}" for name in left))
    return found
