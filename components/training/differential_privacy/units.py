"""Units of protection: rows, or groups of rows such as those of one person; and the draw of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.training.batches.step_plan import StepPlan
from raypath.components.training.differential_privacy.params import PrivacyParams
from raypath.components.training.differential_privacy.secret_random import SecretRandom


@dataclass(frozen=True)
class Units:
    """Unit of each row, int64 [N], numbered from 0; -1 for a row that is left out."""

    of_row: Array

    @classmethod
    def rows(cls, count: int) -> Units:
        """Return units of one row each."""
        return cls(np.arange(count))

    @classmethod
    def groups(cls, values: Sequence[str | None], most: int) -> Units:
        """Return a unit for each value, of `most` rows at most: the first ones in the order of the rows.

        Raises DataError for rows without a value, whose person is not known.
        """
        if missing := sum(not value for value in values):
            what = f"{missing:,} rows of train have no group, so that it is not known whom they belong to"
            raise DataError(what, fix="fill in the column read.group, or set finetune.privacy.unit=row")
        _, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
        order = np.argsort(codes, kind="stable")
        ranks = np.empty(len(codes), np.int64)
        counts = np.bincount(codes)
        ranks[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
        return cls(np.where(ranks < most, codes, -1))

    @property
    def left_out(self) -> int:
        """Number of rows that are not trained on."""
        return int((self.of_row < 0).sum())

    def __len__(self) -> int:
        return int(self.of_row.max(initial=-1)) + 1

    @cached_property
    def _sorted(self) -> tuple[Array, Array]:
        """Return the rows by unit, and where each unit begins, int64 [units + 1]."""
        order = np.argsort(self.of_row, kind="stable")
        return order, np.searchsorted(self.of_row[order], np.arange(len(self) + 1))

    def rows_of(self, units: Array) -> Array:
        """Return the rows of some units, unit by unit."""
        order, starts = self._sorted
        pieces = [order[starts[unit] : starts[unit + 1]] for unit in units]
        return np.concatenate(pieces) if pieces else order[:0]


def row_units(folder: str | Path, rows: int, params: PrivacyParams) -> Units | None:
    """Return what is protected in a dataset of some rows; None without privacy."""
    if not params.enabled:
        return None
    return group_units(folder, params.rows_per_group) if params.unit == "group" else Units.rows(rows)


def group_units(folder: str | Path, most: int) -> Units:
    """Read the units of a dataset from its column `group`. Raises DataError without it."""
    from raypath.components.data.streaming.parquet import scan, schema_of

    if "group" not in schema_of(folder).names:
        what = "finetune.privacy.unit=group needs a column that says whom a row belongs to"
        raise DataError(what, fix="name it with -s read.group=, or set finetune.privacy.unit=row")
    return Units.groups([value for table in scan(folder, ["group"]) for value in table["group"].to_pylist()], most)


class PoissonPlan(StepPlan):
    """Steps `first` to `end` of a training: the rows of the units that each draws. A step may be empty."""

    def __init__(self, units: Units, random: SecretRandom, rate: float, first: int, end: int) -> None:
        self.units, self.random, self.rate, self.first, self.end = units, random, rate, first, end

    def __len__(self) -> int:
        return self.end - self.first

    def _rows(self, step: int) -> Array:
        return self.units.rows_of(self.random.sample(self.first + step, len(self.units), self.rate))
