"""Plan of a private training: steps, noise and the privacy that they spend, known before the first step.

The number of rows is public; nothing else about them enters the plan.
"""

from __future__ import annotations

from pathlib import Path

from raypath.components.core.artifacts import Dataset, Model
from raypath.components.core.context import Context
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.models.metadata import ModelMetadata, PrivacyEvent, PrivacyRecord, read_metadata
from raypath.components.training.differential_privacy.accountant import ACCOUNTANT, epsilon_of, noise_for, steps_within
from raypath.components.training.differential_privacy.ledger import Ledger, ledger_folder
from raypath.components.training.differential_privacy.secret_random import key_id, load_key
from raypath.components.training.differential_privacy.units import row_units
from raypath.components.training.params import ResolvedParams

BATCH_SHARE, LEAST_BATCH = 1 / 16, 64
"""Rows of a step: noise hurts less in large steps, and the rate of their sampling costs little."""


def spend(
    ctx: Context, params: ResolvedParams, metadata: ModelMetadata, train: Dataset, start: Model | None = None
) -> ModelMetadata:
    """Return the metadata with the privacy that the training will spend, which is recorded before it starts.

    Unchanged without `params.privacy`. Raises ParamsError for a bound that cannot be kept, DataError for a start that
    was trained without privacy.
    """
    if not params.privacy.enabled:
        return metadata
    before = _events_before(start)
    units = row_units(train.uri, train.rows, params.privacy)
    assert units is not None
    record = plan(params, len(units), before)
    if units.left_out:
        most = params.privacy.rows_per_group
        ctx.log.info("%d rows are left out: their groups have more than %d", units.left_out, most)
    ledger = Ledger(ledger_folder(ctx.signing), train.source or train.digest, train.digest)
    name = key_id(load_key(ctx.scratch))
    together = epsilon_of([*ledger.events(but=name), record.events[-1]], record.delta)
    record = record.model_copy(update={"data_epsilon": max(together, record.epsilon)})
    record = record.model_copy(update={"data_trainings": ledger.count(but=name) + 1})
    _check_total(ctx, params, record, train)
    ledger.add(name, record)
    ctx.log.info("%s", record.describe())
    ctx.track.metrics({"privacy/epsilon": record.epsilon, "privacy/delta": record.delta})
    ctx.track.params({f"privacy.{name}": value for name, value in record.events[-1].model_dump().items()})
    return metadata.model_copy(update={"privacy": record, **_public_scale(params, metadata)})


def plan(params: ResolvedParams, units: int, before: tuple[PrivacyEvent, ...] = ()) -> PrivacyRecord:
    """Plan steps and noise for a number of rows, or groups. before: events that the model has spent already.

    Raises ParamsError for a delta that is too large, or a bound that cannot be kept.
    """
    privacy = params.privacy
    delta = privacy.delta or 0.1 / units
    if delta >= 1 / units:
        what = f"finetune.privacy.delta={delta:g} allows that one of the {units:,} {privacy.unit}s is published"
        raise ParamsError(what, fix=f"set at most {0.1 / units:.1e}, or leave it out")
    rate = min(1.0, (privacy.batch_rows or default_batch(units)) / units)
    steps = max(1, round(params.epochs / rate))
    noise = privacy.noise_multiplier
    if noise is None:
        assert privacy.epsilon is not None
        noise = noise_for(privacy.epsilon, delta, rate, steps, before)
    event = PrivacyEvent(noise_multiplier=noise, sampling_rate=rate, steps=steps)
    if privacy.epsilon is not None:
        event = event.model_copy(update={"steps": steps_within(privacy.epsilon, delta, event, before)})
        if not event.steps:
            what = (
                f"the first step with noise_multiplier={noise:g} exceeds finetune.privacy.epsilon={privacy.epsilon:g}"
            )
            raise ParamsError(what, fix="raise one of them, or leave noise_multiplier out")
    spent = epsilon_of([*before, event], delta)
    return PrivacyRecord(
        epsilon=spent,
        delta=delta,
        accountant=ACCOUNTANT,
        unit=privacy.unit,
        units=units,
        rows_per_unit=privacy.rows_per_group if privacy.unit == "group" else 1,
        clip=privacy.clip,
        events=(*before, event),
        data_epsilon=spent,
    )


def default_batch(units: int) -> int:
    """Return the expected number of rows, or groups, of a step."""
    return min(units, max(LEAST_BATCH, round(units * BATCH_SHARE)))


def _events_before(start: Model | None) -> tuple[PrivacyEvent, ...]:
    """Return the events of the model that training starts from. Raises DataError for one without privacy."""
    if start is None or start.version.endswith("/0"):  # a base in place of a version
        return ()
    record = read_metadata(Path(start.uri)).privacy
    if record is None:
        what = "training starts from a model that was trained without privacy, perhaps on the same rows"
        raise DataError(what, fix="start from a public base (finetune.base), or from a model with finetune.privacy")
    return record.events


def _check_total(ctx: Context, params: ResolvedParams, record: PrivacyRecord, train: Dataset) -> None:
    """Warn of earlier trainings on the same data, or raise ParamsError if all together exceed the bound."""
    if record.data_trainings == 1:
        return
    most, source = params.privacy.total_epsilon, train.source or "the same rows"
    message = f"with this one, {record.data_trainings} private trainings on {source} spend epsilon "
    message += f"{record.data_epsilon:.3g} together"
    if most is not None and record.data_epsilon > most:
        what = f"{message}, more than finetune.privacy.total_epsilon={most:g}"
        raise ParamsError(what, fix="use a model that is trained already, or other rows")
    ctx.log.warning("%s", message)


def _public_scale(params: ResolvedParams, metadata: ModelMetadata) -> dict[str, tuple[float, ...]]:
    """Return mean and scale of numeric targets by their bounds, since those of the rows would reveal them."""
    low, high = params.privacy.target_low, params.privacy.target_high
    if low is None or high is None:
        return {}
    count = len(metadata.labels)
    return {"means": ((low + high) / 2,) * count, "scales": ((high - low) / 4,) * count}
