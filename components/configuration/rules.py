"""Rules: settings of a training by facts about its rows. Settings that are not "auto" are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from raypath.components.configuration.decoder_rules import decoder_values, is_decoder
from raypath.components.configuration.facts import DataFacts
from raypath.components.configuration.row_tables import by_rows, step_tokens
from raypath.components.configuration.samples import SHORT, SHORT_DECODERS, SHORT_LENGTHS
from raypath.components.core.arrays import Array
from raypath.components.core.artifacts import Values
from raypath.components.core.params import AUTO
from raypath.components.training.params import FinetuneParams

EPOCHS = ((2_000, 6), (5_000, 5), (20_000, 4), (200_000, 3), (1_000_000, 2), (math.inf, 1))
"""Passes over train, at most, by the number of rows below which they apply."""
LEAST_STEPS, MOST_EPOCHS = 200, 20
"""Steps that a training of few rows has at least, and its most passes."""
PATIENCE = 3
"""Validation passes without a better score. The learning rate falls to 0 over all passes, and the last ones gain from
that, so that a training that stops early is the worse one."""
STEP_ROWS = ((3_000, 16), (math.inf, 32))
"""Rows of a step at their mean length, by the number of rows: few rows need the more steps."""
STEP_TOKENS = (256, 4096)
"""Bounds of the tokens of a step."""
RATES = ((800, 2e-4), (math.inf, 1e-4))
"""Learning rate of an encoder that is WIDTH numbers wide, by the number of rows below which it applies. It falls with
the square of the width, as the rates that papers recommend for BERT's sizes do: 2.5e-5 at 768."""
WIDTH, LOWEST_RATE = 384, 1e-5
LONGEST = 256
"""Highest maximum length that is chosen: time grows with it."""
COVERED = 0.99
"""Share of the texts that are to be read to their end."""


@dataclass(frozen=True)
class Choice:
    """Chosen values by name of a setting, and a few words on each for the log."""

    values: Values = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


def choose_max_length(lengths: Array, limit: int | None, source: str = "") -> int:
    """Return the maximum number of tokens of a row that COVERED of the texts do not exceed, a multiple of 16.

    lengths: int [S], tokens of a sample of texts; limit: most tokens of the base.
    """
    if source in SHORT_LENGTHS:
        return min(SHORT_LENGTHS[source], limit or LONGEST)
    wanted = float(np.quantile(lengths, COVERED)) if len(lengths) else 0.0
    rounded = max(32, 16 * math.ceil(wanted / 16))
    return min(rounded, LONGEST, limit or LONGEST)


def choose(params: FinetuneParams, facts: DataFacts, max_length: int) -> Choice:
    """Choose a value for each setting that is "auto", without a look at `params.minutes` (budget.py)."""
    generates_text = is_decoder(params.task)
    short = {} if params.minutes else (SHORT_DECODERS if generates_text else SHORT).get(facts.source, {})
    values: Values = {}

    def want(name: str, chosen: float | int | str | bool | None) -> None:
        if getattr(params, name) == AUTO:
            values[name] = short.get(name, chosen)

    reasons = (f"short training of {facts.source}",) if short else ()
    if generates_text:
        for name, value in decoder_values(params, facts.rows, facts.tokens(max_length), facts.width).items():
            want(name, value)
        return Choice(values, reasons if values else ())
    want("batch_tokens", step_tokens(STEP_ROWS, facts.rows, facts.tokens(max_length), STEP_TOKENS))
    batch = int(values.get("batch_tokens") or params.batch_tokens)
    steps = max(1, math.ceil(facts.rows * facts.tokens(max_length) / batch))
    want("epochs", max(int(by_rows(EPOCHS, facts.rows)), min(math.ceil(LEAST_STEPS / steps), MOST_EPOCHS)))
    want("method", "head" if facts.has_features else "full")
    want("lr", _rate(facts.rows, facts.width))
    want("warmup", 0.1)
    want("patience", PATIENCE)
    want("frozen_layers", 0)
    return Choice(values, reasons if values else ())


def _rate(rows: int, width: int) -> float:
    """Return the learning rate of an encoder by the number of rows and its width; 0 is unknown."""
    rate = by_rows(RATES, rows) * min(1.0, (WIDTH / max(width, WIDTH)) ** 2)
    return float(f"{max(rate, LOWEST_RATE):.1e}")
