"""Passes of a decoder's training that fit a budget of time."""

import numpy as np
import pytest

from raypath.components.configuration.decoder_plan import _fit_passes
from raypath.components.configuration.facts import DataFacts
from raypath.components.configuration.speed import Speed
from raypath.components.training.params import FinetuneParams, ResolvedParams

FACTS = DataFacts(rows=100, valid_rows=0, counts=(), lengths=np.full(9, 50), limit=None, layers=2)
SPEED = Speed(train=0.01, valid=0.0, load=0.0, row_tokens=50.0)
"""50 seconds for an epoch."""


@pytest.mark.parametrize(
    ("minutes", "epochs", "found", "reason"),
    [
        (None, "auto", 3, ""),
        (10.0, "auto", 3, ""),
        (2.0, "auto", 2, "to fit finetune.minutes=2"),
        (0.1, "auto", 1, "takes longer than finetune.minutes=0.1"),
        (2.0, "3", 3, "takes longer than finetune.minutes=2"),
        (10.0, "3", 3, ""),
        (0.1, "3", 3, "takes longer than finetune.minutes=0.1"),
    ],
)
def test_fewer_passes_fit_a_budget(minutes: float | None, epochs: str, found: int, reason: str) -> None:
    params = FinetuneParams(task="text_generation", minutes=minutes).override({"epochs": epochs})
    choice = _fit_passes(params, ResolvedParams(epochs=3, frozen_layers=-1), FACTS, SPEED)
    assert (choice.values.get("epochs", 3), "".join(choice.reasons)) == (found, reason)
    assert choice.values.keys() <= {"epochs"}
