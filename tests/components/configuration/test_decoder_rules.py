"""Settings of language models, by the rows, the width of the base and LoRA."""

import numpy as np
import pytest

from raypath.components.configuration.decoder_rules import LONGEST, choose_length, is_decoder
from raypath.components.configuration.facts import DataFacts
from raypath.components.configuration.resolve import CHOSEN, resolved
from raypath.components.configuration.rules import choose
from raypath.components.configuration.samples import SHORT_DECODERS
from raypath.components.tasks.text_generation import TextGeneration
from raypath.components.training.params import FinetuneParams, ResolvedParams


class Poems(TextGeneration):
    """A task of one's own."""


def facts(rows: int, tokens: int = 100, width: int = 576, source: str = "mine.jsonl") -> DataFacts:
    lengths = np.full(50, tokens)
    return DataFacts(
        rows=rows, valid_rows=10, counts=(), lengths=lengths, limit=8192, layers=30, width=width, source=source
    )


def chosen(found: DataFacts, **settings: object) -> ResolvedParams:
    params = FinetuneParams(base="mine", task="text_generation").override(settings)
    return resolved(params, choose(params, found, 2048).values)


def test_wider_bases_learn_more_slowly_and_adapters_faster() -> None:
    full = [chosen(facts(500, width=width)).lr for width in (64, 576, 2560, 4096, 8192)]
    assert full == sorted(full, reverse=True)
    adapters = [chosen(facts(500, width=width), lora=16).lr for width in (2560, 4096, 8192)]
    assert adapters == [pytest.approx(10 * rate, rel=0.02) for rate in full[2:]]


def test_steps_grow_with_the_rows_and_passes_become_fewer() -> None:
    found = [chosen(facts(rows)) for rows in (50, 5_000, 500_000)]
    assert [each.batch_tokens for each in found] == sorted({each.batch_tokens for each in found})
    assert [each.epochs for each in found] == [3, 2, 1]


def test_preferences_are_learned_with_smaller_steps_and_fewer_passes() -> None:
    plain, pairs = chosen(facts(500)), chosen(facts(500), task="preference")
    orpo = chosen(facts(500), **{"task": "preference", "objective.preference": "orpo"})
    assert pairs.lr == pytest.approx(0.1 * plain.lr, rel=0.02)
    assert orpo.lr == plain.lr
    assert (pairs.epochs, orpo.epochs, plain.epochs) == (2, 2, 3)
    assert pairs.batch_tokens == 2 * plain.batch_tokens
    assert [chosen(facts(rows), task="preference").epochs for rows in (5_000, 500_000)] == [1, 1]


def test_every_setting_has_a_value_and_one_that_is_given_is_kept() -> None:
    params = FinetuneParams(task="text_generation")
    assert set(choose(params, facts(50), 64).values) == set(CHOSEN) - {"base"}
    assert chosen(facts(50), lr=3e-5, epochs=7).model_dump(include={"lr", "epochs"}) == {"lr": 3e-5, "epochs": 7}


def test_the_sample_has_a_short_training_unless_there_is_a_budget() -> None:
    sample = facts(566, source="sample://strikes")
    assert chosen(sample, lora=16).epochs == SHORT_DECODERS["sample://strikes"]["epochs"]
    assert chosen(sample, minutes=60.0).epochs == 3
    classifier = FinetuneParams(base="mine")
    assert choose(classifier, sample, 64).reasons == ()


@pytest.mark.parametrize(
    ("lengths", "limit", "found"),
    [([40, 100], 8192, 112), ([1], None, 32), ([9_000], 8192, LONGEST), ([300], 256, 256)],
)
def test_no_conversation_of_the_sample_is_too_long(lengths: list[int], limit: int | None, found: int) -> None:
    assert choose_length(np.array(lengths), limit) == found


def test_tasks_that_write() -> None:
    tasks = ("text_generation", "preference", f"{__name__}:Poems", "text_classification", "language_model")
    assert [is_decoder(task) for task in tasks] == [True, True, True, False, False]
