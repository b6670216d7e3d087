"""Rules of the settings as exact values, and the sentences that a user reads about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.configuration import facts as facts_module
from raypath.components.configuration import methods, rules, speed
from raypath.components.configuration.base import _described
from raypath.components.configuration.budget import _candidates, fit_budget, training_share
from raypath.components.configuration.facts import DataFacts, shape_of
from raypath.components.configuration.learning_curve import describe as describe_curve
from raypath.components.configuration.learning_curve import learning_curve
from raypath.components.configuration.methods import CONTRASTIVE, PROBE, has_few_rows
from raypath.components.configuration.plan import TrainingPlan, describe, duration, training_seconds
from raypath.components.configuration.resolve import resolved
from raypath.components.configuration.rules import choose, choose_max_length
from raypath.components.configuration.samples import SHORT, SHORT_LENGTHS
from raypath.components.configuration.speed import Speed
from raypath.components.inspection.texts.foreign import ForeignTexts
from raypath.components.training.params import CONTRASTIVE_PASSES, FinetuneParams, ResolvedParams


def facts(rows: int, tokens: int = 40, **more: Any) -> DataFacts:
    given: dict[str, Any] = {"valid_rows": rows // 10, "counts": (rows // 4,) * 4, "lengths": np.full(9, tokens)}
    return DataFacts(**({"rows": rows, "limit": 512, "layers": 6} | given | more))


@pytest.mark.parametrize(
    ("rows", "epochs"),
    [(1_999, 6), (2_000, 5), (4_999, 5), (5_000, 4), (19_999, 4), (20_000, 3), (199_999, 3), (200_000, 2), (999_999, 2),
     (1_000_000, 1)],
)  # fmt: skip
def test_passes_by_the_number_of_rows(rows: int, epochs: int) -> None:
    assert choose(FinetuneParams(), facts(rows), 64).values["epochs"] == epochs


@pytest.mark.parametrize(
    ("rows", "tokens", "batch", "epochs"),
    [
        (100, 40, 512, 20),  # 8 steps a pass
        (256, 40, 512, 10),  # 20 steps a pass
        (2_999, 40, 512, 5),
        (3_000, 40, 1_024, 5),
        (3_000, 4, 256, 5),
        (3_000, 1_000, 2_048, 5),
        (100_000, 1_000, 2_048, 3),
    ],
)
def test_tokens_of_a_step_and_its_least_number(rows: int, tokens: int, batch: int, epochs: int) -> None:
    values = choose(FinetuneParams(), facts(rows, tokens), 64).values
    assert (values["batch_tokens"], values["epochs"]) == (batch, epochs)


def test_what_is_chosen_besides() -> None:
    values = choose(FinetuneParams(), facts(2_000, width=768), 64).values
    rest = {name: values[name] for name in ("method", "lr", "warmup", "patience", "frozen_layers")}
    assert rest == {"method": "full", "lr": 2.5e-5, "warmup": 0.1, "patience": 3, "frozen_layers": 0}
    assert choose(FinetuneParams(), facts(2_000, has_features=True), 64).values["method"] == "head"
    assert choose(FinetuneParams(), facts(2_000), 64).reasons == ()
    short = choose(FinetuneParams(), facts(2_000, source="sample://reviews"), 64)
    assert short.reasons == ("short training of sample://reviews",)
    assert short.values | {"epochs": 1, "lr": 1e-4, "batch_tokens": 2048, "frozen_layers": 2} == short.values
    assert choose(FinetuneParams(minutes=1.0), facts(2_000, source="sample://reviews"), 64).reasons == ()
    known = FinetuneParams(epochs=1, lr=1.0, batch_tokens=9, frozen_layers=1, patience=1, warmup=0.1, method="full")
    assert choose(known, facts(2_000, source="sample://reviews"), 64).reasons == ()


@pytest.mark.parametrize(("width", "rate"), [(0, 1e-4), (384, 1e-4), (512, 5.6e-5), (1_024, 1.4e-5), (4_096, 1e-5)])
def test_rates_by_width(width: int, rate: float) -> None:
    assert choose(FinetuneParams(), facts(2_000, width=width), 64).values["lr"] == rate
    few = [choose(FinetuneParams(), facts(rows, width=384), 64).values["lr"] for rows in (400, 799, 800)]
    assert few == [2e-4, 2e-4, 1e-4]


@pytest.mark.parametrize(
    ("lengths", "limit", "wanted"),
    [([], 512, 32), ([33], None, 48), ([32], None, 32), ([256] * 9, None, 256), ([257] * 9, None, 256), ([64], 40, 40)],
)
def test_maximum_lengths(lengths: list[int], limit: int | None, wanted: int) -> None:
    assert choose_max_length(np.array(lengths), limit) == wanted
    assert choose_max_length(np.array(lengths), limit, "sample://movies") == min(64, limit or 64)


def test_facts() -> None:
    found = facts(8, lengths=np.array([2, 4, 12]))
    assert (found.classes, found.tokens(64), found.tokens(6)) == (4, 6.0, 4.0)
    assert facts(8, lengths=np.array([])).tokens(64) == 1.0
    assert (found.width, found.source, found.has_features) == (0, "", False)
    assert (facts_module.SAMPLE_ROWS, facts_module.SLICES, facts_module.LONGEST) == (2_048, 32, 2_048)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"num_hidden_layers": 6, "hidden_size": 384}, (6, 384)),
        ({"n_layers": 3, "dim": 768}, (3, 768)),
        ({"n_layer": 2, "n_embd": 64}, (2, 64)),
        ({"num_hidden_layers": 0, "n_layer": 2, "d_model": 32}, (2, 32)),
        ({}, (0, 0)),
        ([], (0, 0)),
        ({"num_hidden_layers": "x"}, (0, 0)),
        (None, (0, 0)),
    ],
)
def test_the_shape_of_an_encoder(tmp_path: Path, config: Any, shape: tuple[int, int]) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of(tmp_path) == shape


@pytest.mark.parametrize(
    ("rows", "classes", "few"),
    [(0, 4, False), (1, 4, True), (256, 4, True), (257, 4, False), (320, 9, True), (321, 9, False), (9, 0, False)],
)
def test_few_rows(rows: int, classes: int, few: bool) -> None:
    assert has_few_rows(facts(rows, counts=(1,) * classes)) is few


def test_settings_of_the_methods_for_few_rows() -> None:
    assert CONTRASTIVE == {"method": "contrastive", "epochs": 2, "lr": 1e-4, "batch_tokens": 2048, "patience": 0}
    assert PROBE == {"method": "linear_probe"}
    assert (methods.SECONDS, speed.SECONDS, speed.WARMUP_STEPS) == (60.0, 3.0, 2)
    assert (speed.LEAST_STEPS, speed.MOST_STEPS, speed.VALID_ROWS, rules.COVERED) == (4, 60, 256, 0.99)


@pytest.mark.parametrize(
    ("frozen", "layers", "share"),
    [(0, 6, 1.0), (3, 6, 12 / 18), (6, 6, 1 / 3), (9, 6, 1 / 3), (1, 0, 1.0), (-1, 6, 1.0)],
)
def test_time_of_a_step_with_frozen_layers(frozen: int, layers: int, share: float) -> None:
    assert training_share(frozen, layers) == pytest.approx(share)


def test_time_of_a_training() -> None:
    measured = Speed(train=2.0, valid=1.0, load=7.0, row_tokens=10.0)
    assert measured.seconds(3, 2, 4) == 7 + 4 * (3 * 2 + 2 * 1) * 10
    assert measured.seconds(3, 2, 4, 0.5) == 7 + 4 * (3 + 2) * 10


def test_what_is_tried_to_fit_a_budget() -> None:
    def tried(most: int, **given: Any) -> list[tuple[int, int]]:
        params = FinetuneParams(**given)
        values: dict[str, Any] = {"frozen_layers": 0, **given}
        return list(_candidates(params, ResolvedParams(base="x").override({"epochs": most, **values}), 6))

    assert tried(4) == [(4, 0), (3, 0), (4, 2), (3, 2), (4, 3), (3, 3), (4, 4), (3, 4),
                        (2, 0), (2, 2), (2, 3), (2, 4), (1, 0), (1, 2), (1, 3), (1, 4)]  # fmt: skip
    assert tried(2, frozen_layers=1) == [(2, 1), (1, 1)]
    assert tried(4, epochs=4) == [(4, 0), (4, 2), (4, 3), (4, 4)]


@pytest.mark.parametrize(
    ("minutes", "values", "reason"),
    [
        (1.0, {}, ()),
        (0.89, {"epochs": 3, "frozen_layers": 0}, ("to fit finetune.minutes=0.89",)),
        (0.01, {"method": "head", "epochs": 20}, ("only a head fits finetune.minutes",)),
        (None, {}, ()),
    ],
)
def test_budgets(minutes: float | None, values: dict[str, Any], reason: tuple[str, ...]) -> None:
    """Four passes take 4 + 50 s: 90% of a minute."""
    found = facts(1_000, valid_rows=500)
    params = FinetuneParams(base="x", minutes=minutes)
    settings = resolved(params, choose(params, found, 64).values | {"epochs": 4})
    measured = Speed(train=1e-2, valid=5e-3, load=4.0, row_tokens=1.0)
    choice = fit_budget(params, settings, found, measured)
    assert (dict(choice.values), choice.reasons) == (values, reason)
    full = params.override({"method": "full"})
    if values.get("method"):
        choice = fit_budget(full, settings, found, measured)
        assert choice.values == {"epochs": 1, "frozen_layers": 5}
        assert choice.reasons == ("takes longer than finetune.minutes=0.01",)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (1.6, "2 s"), (89, "89 s"), (90, "2 min"), (200, "3 min"), (5_399, "90 min"), (5_400, "1.5 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def _plan(chosen: tuple[str, ...], seconds: float = 40, **fields: Any) -> str:
    given = {"epochs": 3, "lr": 2e-4, "patience": 3, "method": "full", "base": "x", **fields.pop("settings", {})}
    found = facts(1_200, **fields.pop("facts", {}))
    return describe(
        TrainingPlan(ResolvedParams().override(given), chosen, 64, seconds, found, fields.pop("reasons", ()))
    )


def test_a_plan_in_a_line() -> None:
    assert _plan(("base", "epochs", "lr"), reasons=("a reason",)) == (
        "epochs=3, lr=0.0002 for 1,200 rows of 4 classes, 40 tokens each; a reason; fine-tuning takes at most 40 s"
    )
    assert _plan(("base",), settings={"patience": 0}) == "fine-tuning takes 40 s"
    assert _plan((), settings={"method": "head"}) == "fine-tuning takes 40 s"
    assert _plan(("epochs",), facts={"counts": ()}) == (
        "epochs=3 for 1,200 rows, 40 tokens each; fine-tuning takes at most 40 s"
    )
    assert "of 1 class, 64 tokens each" in _plan(("epochs",), facts={"counts": (5,), "lengths": np.array([90])})


GAINS = "a head on frozen features gains {} points of accuracy from 500 to 1,000 rows"


@pytest.mark.parametrize(
    ("curve", "rows", "text"),
    [
        ({}, 500, "whether more data would help cannot be said: a part of the rows has one class only"),
        ({500: 0.9}, 500, "whether more data would help cannot be said: a part of the rows has one class only"),
        ({250: 0.5, 500: 0.8, 1_000: 0.809}, 1_000, f"more data would hardly help: {GAINS.format('+0.9')}"),
        ({500: 0.8, 1_000: 0.811}, 1_000, f"more data would help: {GAINS.format('+1.1')}"),
        ({500: 0.8, 1_000: 0.75}, 1_000, f"more data would hardly help: {GAINS.format('-5.0')}"),
        ({1_000: 0.9, 500: 0.8}, 5_000, f"more data would help: {GAINS.format('+10.0')}; train has 5,000"),
    ],
)
def test_whether_more_data_helps(curve: dict[int, float], rows: int, text: str) -> None:
    assert describe_curve(curve, rows) == text


def test_a_learning_curve() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = (y[:, None] * 4 + rng.normal(size=(200, 3))).astype(np.float32)
    assert learning_curve(x[:100], y[:100], x[100:], y[100:], 0) == {25: 1.0, 50: 1.0, 100: 1.0}
    one_class = learning_curve(x[:100], np.array([1] + [0] * 99), x[100:], y[100:], 0)
    assert set(one_class) < {25, 50, 100}
    assert 100 in one_class


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (ForeignTexts(10, 3, ("de", "fr"), 0.05, 2.34),
         "30% of the texts are not English (de, fr); a base for English divides their words into 2.3 tokens each"),
        (ForeignTexts(10, 10, ("zh",), 0.42, 1.0),
         "100% of the texts are not English (zh); a base for English does not know 42% of their words"),
        (ForeignTexts(1_000, 1, (), 0.0, 3.0),
         "0.1% of the texts are not English; a base for English divides their words into 3.0 tokens each"),
    ],
)  # fmt: skip
def test_texts_that_are_not_english(found: ForeignTexts, text: str) -> None:
    assert _described(found) == text
    assert found.share == found.foreign / found.texts
    assert ForeignTexts(0, 0).share == 0


@pytest.mark.parametrize(
    ("settings", "gpus", "wanted"),
    [
        ({"method": "full"}, 0, 1 + 2 * (8 * 3 + 2 * 5) * 7),
        ({"method": "full", "workers": 2}, 0, 1 + 2 * (8 * 3 + 2 * 5) * 7),
        ({"method": "full", "workers": 2}, 1, 1 + 2 * (8 * 3 / 2 + 2 * 5) * 7),
        ({"method": "head"}, 0, 1 + (8 + 2) * 7 * 5),
        ({"method": "linear_probe"}, 0, 1 + (8 + 2) * 7 * 5),
        ({"method": "contrastive"}, 0, 1 + 2 * (8 * 3 * CONTRASTIVE_PASSES + 2 * 5) * 7),
    ],
)
def test_the_time_of_each_method(make_context: Any, settings: dict[str, Any], gpus: int, wanted: float) -> None:
    params = ResolvedParams(base="x").override({"epochs": 2, **settings})
    measured = Speed(train=3.0, valid=5.0, load=1.0, row_tokens=7.0)
    ctx = make_context("configure", gpus=gpus)
    assert training_seconds(ctx, params, facts(8, valid_rows=2), measured) == pytest.approx(wanted)


def test_the_short_training_of_the_samples() -> None:
    assert {name.removeprefix("sample://"): values for name, values in SHORT.items()} == {
        "reviews": {"epochs": 1, "lr": 1e-4, "batch_tokens": 2048, "frozen_layers": 2},
        "movies": {"epochs": 3, "lr": 2e-4, "batch_tokens": 512, "frozen_layers": 3},
        "tweets": {"epochs": 1, "lr": 1e-4, "batch_tokens": 2048, "frozen_layers": 4},
    }
    assert SHORT_LENGTHS == {"sample://reviews": 128, "sample://movies": 64, "sample://tweets": 64}
