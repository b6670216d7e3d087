"""Values by the number of rows, from tables of bounds; and the tokens of a step."""

from __future__ import annotations

import math

Table = tuple[tuple[float, float], ...]
"""(bound, value): the value applies below this number of rows; the last bound is infinite."""


def by_rows(table: Table, rows: int) -> float:
    """Return the value of the first bound that is above the number of rows."""
    return next(value for bound, value in table if rows < bound)


def step_tokens(step_rows: Table, rows: int, tokens: float, bounds: tuple[int, int]) -> int:
    """Return the tokens of a step, a power of two within `bounds`.

    step_rows: rows of a step by the number of rows. tokens: mean of a row.
    """
    wanted = 2 ** round(math.log2(max(1.0, by_rows(step_rows, rows) * tokens)))
    return int(min(max(wanted, bounds[0]), bounds[1]))
