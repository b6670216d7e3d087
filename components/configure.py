"""Choose settings from the data: those of `preprocess`, `extract`, `tune` and `finetune` that are "auto".

The choice follows from the rows of train, their classes, the lengths of their texts and `finetune.minutes`, and is
logged with its reasons and the time that training will take, before anything that costs time.
"""

from __future__ import annotations

import json

from raypath.components.core.artifacts import Configuration, Model, Settings, Splits, Values
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.params import AUTO
from raypath.components.preprocess import PreprocessParams
from raypath.components.training.params import FinetuneParams


@component(version=1)
def configure(
    ctx: Context,
    splits: Splits,
    finetune: FinetuneParams,
    preprocess: PreprocessParams,
    start: Model | None = None,
) -> Configuration:
    """Return values for all settings that are "auto"; those that you set are never changed.

    splits: before `preprocess`. start: the language model that training starts from; its base is the one that is
    chosen. A few steps of training are run and discarded, to estimate its time. Each part of the
    result is a folder with settings.json. Raises DataError for a base that cannot be loaded.
    """
    from raypath.components.configuration.decoder_plan import plan_decoder
    from raypath.components.configuration.decoder_rules import is_decoder
    from raypath.components.configuration.plan import describe, plan_training
    from raypath.components.models.base_models import original_base
    from raypath.components.models.conversion.packaged import CHAT
    from raypath.components.tasks.catalog import task_type
    from raypath.components.training.differential_privacy.checks import check_private

    check_private(finetune)
    if is_decoder(finetune.task):
        if finetune.base == AUTO and start is None:
            task_type(finetune.task).check_no_base()
        base = original_base(start.base) if start is not None else CHAT
        plan = plan_decoder(ctx, splits, finetune, base, preprocess.max_length, preprocess.learn)
    else:
        plan = plan_training(ctx, splits, finetune, preprocess.form, preprocess.max_length)
    inputs: Values = {"base": plan.params.base, "max_length": plan.max_length}
    values: Values = {name: getattr(plan.params, name) for name in plan.chosen}
    ctx.log.info("%s", describe(plan))
    for name, chosen in (("inputs", inputs), ("finetune", values)):
        (ctx.out / name).mkdir()
        (ctx.out / name / "settings.json").write_text(json.dumps(chosen, indent=1), encoding="utf-8")
    ctx.track.metrics({"estimated_seconds": plan.seconds})
    ctx.track.params({f"chosen.{name}": value for name, value in (values | inputs).items()})
    return Configuration(
        inputs=Settings(uri="inputs", values=inputs),
        finetune=Settings(uri="finetune", values=values, seconds=plan.seconds),
    )
