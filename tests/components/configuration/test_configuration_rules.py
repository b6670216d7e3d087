"""Settings by facts about the rows: a table of cases, bounds, and what a user sets."""

from pathlib import Path

import numpy as np
import pytest

from raypath.components.configuration.budget import fit_budget, training_share
from raypath.components.configuration.facts import DataFacts
from raypath.components.configuration.resolve import CHOSEN, auto_names, resolve, resolved
from raypath.components.configuration.rules import LONGEST, MOST_EPOCHS, choose, choose_max_length
from raypath.components.configuration.samples import SHORT, SHORT_LENGTHS
from raypath.components.configuration.speed import Speed
from raypath.components.core.artifacts import Settings
from raypath.components.core.errors import ParamsError
from raypath.components.training.params import FinetuneParams, ResolvedParams
from tests.tiny import write_part


def facts(rows: int, tokens: int = 40, classes: int = 4, source: str = "mine.csv", **more: object) -> DataFacts:
    lengths = np.full(100, tokens)
    given = {"layers": 6, "limit": 512, "valid_rows": rows // 10, **more}
    return DataFacts(rows=rows, counts=(rows // classes,) * classes, lengths=lengths, source=source, **given)  # type: ignore[arg-type]


def chosen(found: DataFacts, **settings: object) -> ResolvedParams:
    params = FinetuneParams(base="mine").override(settings)
    return resolved(params, choose(params, found, 256).values)


def test_few_rows_are_read_more_often_and_in_smaller_steps() -> None:
    sizes = [100, 500, 2_000, 10_000, 50_000, 500_000]
    epochs = [chosen(facts(rows)).epochs for rows in sizes]
    assert epochs == sorted(epochs, reverse=True)
    assert (epochs[0], epochs[2], epochs[-2], chosen(facts(5_000_000)).epochs) == (20, 5, 3, 1)
    rows = [chosen(facts(2_000, tokens)).batch_tokens / tokens for tokens in (20, 40, 80)]
    assert max(rows) <= 2 * min(rows), "the rows of a step are kept, not its tokens"
    assert chosen(facts(500)).batch_tokens < chosen(facts(50_000)).batch_tokens


def test_wider_models_learn_more_slowly() -> None:
    rates = [chosen(facts(2_000, width=width)).lr for width in (32, 384, 768, 1024, 4096)]
    assert rates[:3] == [1e-4, 1e-4, 2.5e-5]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 1e-5


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 1), ("lr", 7e-5), ("batch_tokens", 333), ("frozen_layers", 5), ("patience", 0), ("warmup", 0.3)],
)
def test_a_setting_that_is_given_is_kept(name: str, value: float) -> None:
    params = FinetuneParams(base="mine").override({name: value})
    assert name not in choose(params, facts(300), 64).values
    for found in (chosen(facts(300), **{name: value}), chosen(facts(300, source="sample://reviews"), **{name: value})):
        assert getattr(found, name) == value


def test_every_setting_that_is_auto_has_a_value_and_auto_is_no_value_of_a_training() -> None:
    fields = {name for name, field in FinetuneParams.model_fields.items() if field.default == "auto"}
    assert fields - {"precision", "memory"} == set(CHOSEN)
    assert auto_names(FinetuneParams()) == list(CHOSEN)
    assert set(choose(FinetuneParams(), facts(50), 64).values) == set(CHOSEN) - {"base"}
    with pytest.raises(ParamsError, match=r"epochs got 'auto': wanted a valid integer"):
        ResolvedParams().override({"epochs": "auto"})


@pytest.mark.parametrize("source", SHORT)
def test_the_short_training_is_the_samples_alone(source: str) -> None:
    sample, own = chosen(facts(4_000, source=source)), chosen(facts(4_000))
    assert sample.epochs == SHORT[source]["epochs"] < own.epochs
    assert sample.frozen_layers > own.frozen_layers
    assert chosen(facts(4_000, source=source), minutes=60.0).epochs == own.epochs
    assert choose_max_length(np.full(9, 400), 512, source) == SHORT_LENGTHS[source]


@pytest.mark.parametrize(
    ("lengths", "limit", "wanted"),
    [([5] * 99, 512, 32), ([70] * 99, 512, 80), ([20] * 50 + [90] * 50, 512, 96), ([900] * 9, 512, LONGEST),
     ([900] * 9, 128, 128), ([20] * 999 + [500], 512, 32), ([900] * 9, None, LONGEST)],
)  # fmt: skip
def test_the_maximum_length_follows_the_texts(lengths: list[int], limit: int | None, wanted: int) -> None:
    assert choose_max_length(np.array(lengths), limit) == wanted


SPEED = Speed(train=1e-4, valid=3e-5, load=1.0, row_tokens=50.0)


@pytest.mark.parametrize("minutes", [0.5, 1.0, 3.0, 10.0])
def test_what_is_chosen_fits_the_budget(minutes: float) -> None:
    found = facts(20_000)
    params = FinetuneParams(base="mine", minutes=minutes)
    before = resolved(params, choose(params, found, 64).values)
    changed = fit_budget(params, before, found, SPEED)
    after = resolved(params, {**choose(params, found, 64).values, **changed.values})
    share = training_share(after.frozen_layers, 6)
    seconds = SPEED.seconds(found.rows, found.valid_rows, after.epochs, share)
    assert after.method == "head" or seconds <= 60 * minutes
    assert bool(changed.values) == (SPEED.seconds(found.rows, found.valid_rows, before.epochs) > 54 * minutes)


def test_more_time_is_never_used_worse() -> None:
    found = facts(20_000)
    tried = []
    for minutes in (1.0, 2.0, 4.0, 8.0, 16.0, 60.0):
        params = FinetuneParams(base="mine", minutes=minutes)
        values = choose(params, found, 64).values
        after = resolved(params, values | fit_budget(params, resolved(params, values), found, SPEED).values)
        tried.append((after.method == "full", after.epochs * (6 - after.frozen_layers)))
    assert tried == sorted(tried)
    assert len(set(tried)) >= 4, "the budget decides"


def test_a_budget_changes_no_setting_that_is_given() -> None:
    params = FinetuneParams(base="mine", minutes=0.01, epochs=5, frozen_layers=1, method="full")
    before = resolved(params, choose(params, facts(20_000), 64).values)
    changed = fit_budget(params, before, facts(20_000), SPEED)
    assert changed.values == {}
    assert changed.reasons == ("takes longer than finetune.minutes=0.01",)


def test_a_training_without_configure_resolves_the_rest_from_its_rows(base: Path, tmp_path: Path, make_context) -> None:  # type: ignore[no-untyped-def]
    ctx, train = make_context("finetune"), write_part(tmp_path, base, 60, 0)
    params = FinetuneParams(base=str(base), lr=3e-3)
    found = resolve(ctx, params, None, (train, train))
    assert (found.lr, found.base, found.method) == (3e-3, str(base), "full")
    assert found.epochs == MOST_EPOCHS
    given = Settings(values={name: getattr(found, name) for name in auto_names(params)} | {"epochs": 2})
    assert resolve(ctx, params, given, (train, train)).epochs == 2
    tuned = Settings(values={"lr": 1e-3})
    assert resolve(ctx, params, tuned, (train, train)).lr == 1e-3, "what tune found replaces what was given"
