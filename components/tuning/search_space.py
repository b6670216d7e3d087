"""Search space of `tune`: settings of fine-tuning, and the values to search.

A dimension is a set of choices or a range on a log scale. Names and values are those of ResolvedParams; invalid ones
are rejected before any trial.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from raypath.components.core.errors import ParamsError
from raypath.components.core.params import Params
from raypath.components.training.params import ResolvedParams

Value = bool | int | float | str | None
Values = dict[str, Value]
_WHERE = {"base", "task", "method", "workers", "max_workers", "shard", "threads", "micro_tokens", "precision"}
_HOW = {"memory", "gradient_checkpointing", "checkpoint_seconds", "profile", "metric"}
FIXED = frozenset(_WHERE | _HOW)
"""Settings that cannot be searched: they define where and how training runs, and its metric."""
MOVABLE = frozenset({"lr", "head_factor", "weight_decay", "clip", "dropout"})
"""Settings that may change during a training, as in population based training."""


class Span(Params):
    """Range on a log scale: {"low": 1, "high": 30}."""

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("wanted the lower number first")
        return self


def _form(given: Any) -> str:
    return "range" if isinstance(given, dict | Span) else "choices"


Choices = Annotated[tuple[Value, ...], Field(strict=False, min_length=1)]
Space = dict[str, Annotated[Annotated[Choices, Tag("choices")] | Annotated[Span, Tag("range")], Discriminator(_form)]]


@dataclass(frozen=True)
class Dimension:
    """Searched setting: `choices`, or a range from `low` to `high`, of integers if the setting is one."""

    name: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    integer: bool = False

    def distribution(self) -> Any:
        """Optuna distribution of the dimension."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.integer:
            return distributions.IntDistribution(int(self.low), int(self.high), log=True)
        return distributions.FloatDistribution(self.low, self.high, log=True)

    def mutation(self) -> Any:
        """Mutation of the dimension in Ray Tune's population based training."""
        from ray import tune

        return list(self.choices) if self.choices else tune.loguniform(self.low, self.high)

    def points(self, count: int) -> list[Value]:
        """Grid values: the choices, or `count` values equally spaced on a log scale."""
        import numpy as np

        if self.choices:
            return list(self.choices)
        spaced = np.geomspace(self.low, self.high, count).tolist() if count > 1 else [(self.low * self.high) ** 0.5]
        clipped = [min(max(value, self.low), self.high) for value in spaced]
        return list(dict.fromkeys(round(v) for v in clipped)) if self.integer else list(clipped)

    def contains(self, value: Value) -> bool:
        """Return True for a value of the dimension."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    def clip(self, value: Any) -> Any:
        """Clip a value to the range."""
        return value if self.choices else type(value)(min(max(value, self.low), self.high))


def dimensions(ranges: Mapping[str, tuple[float, float]], space: Mapping[str, Any]) -> list[Dimension]:
    """Build all dimensions; a name in `space` replaces its range. Raises ParamsError.

    A range with equal ends is not searched.
    """
    spans: Space = {name: Span(low=low, high=high) for name, (low, high) in ranges.items() if low < high}
    return [_dimension(name, given) for name, given in {**spans, **space}.items()]


def own_values(params: ResolvedParams, searched: list[Dimension]) -> Values | None:
    """Return the values of `params` themselves, or None if one is not in the search space."""
    values = {d.name: _read(params, d.name) for d in searched}
    return values if all(d.contains(values[d.name]) for d in searched) else None


def grid(searched: list[Dimension], points: int, most: int, seed: int) -> tuple[list[Values], int]:
    """Return (at most `most` combinations of all values, drawn by `seed`; the number of all combinations)."""
    import numpy as np

    names = [d.name for d in searched]
    every = [dict(zip(names, row, strict=True)) for row in itertools.product(*(d.points(points) for d in searched))]
    if len(every) <= most:
        return every, len(every)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(every))[:most])
    return [every[n] for n in drawn], len(every)


def _dimension(name: str, given: tuple[Value, ...] | Span) -> Dimension:
    if name in FIXED:
        raise ParamsError(
            f"tune.space.{name} cannot be searched",
            fix="set finetune's own value; search settings such as lr or dropout",
        )
    if isinstance(given, Span):
        _accepted(name, given.low), _accepted(name, given.high)
        integer = not _accepts(name, given.low + (given.high - given.low) * 0.31415)
        return Dimension(name, low=given.low, high=given.high, integer=integer)
    return Dimension(name, choices=tuple(dict.fromkeys(_accepted(name, value) for value in given)))


def _accepted(name: str, value: Value) -> Value:
    """Return the value as ResolvedParams stores it. Raises ParamsError with the name of the setting."""
    if isinstance(value, float) and value.is_integer() and _accepts(name, int(value)):
        value = int(value)
    try:
        kept: Value = _read(ResolvedParams().override({name: value}), name)
        return kept
    except ParamsError as error:
        raise ParamsError(f"tune.space: {error.what}", fix=error.fix) from None


def _accepts(name: str, value: Value) -> bool:
    try:
        ResolvedParams().override({name: value})
    except ParamsError:
        return False
    return True


def _read(params: ResolvedParams, name: str) -> Any:
    return reduce(getattr, name.split("."), params)
