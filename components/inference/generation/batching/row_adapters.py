"""LoRA adapters of rows: rows of a batch take different adapters in one forward pass, over one copy of the base.

The low-rank product is added to the output of each adapted layer (Hu et al., LoRA, 2021). For one token a row, the
matrices of all adapters in the batch are joined, and a mask leaves each row its own: two products a layer, whatever the
number of adapters. For prompts, whose products take longer than their calls, the rows of each adapter are apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from raypath.components.core.errors import DataError
from raypath.components.inference.generation.batching.adapter_file import Pair, read_adapter

SPARE = 2
"""Multiple of the ranks that the rows of a batch need, above which the joined matrices are made smaller."""


@dataclass
class _Plan:
    """Rows of a forward pass, B. groups: the rows of each adapter, int64, None for all; mask: 1 where a row takes a
    joined adapter, [B, adapters]; None where groups are used."""

    rows: int
    tokens: int
    groups: list[tuple[str, torch.Tensor | None]] = field(default_factory=list)
    mask: torch.Tensor | None = None
    _masks: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)

    def ranks(self, counts: tuple[int, ...]) -> torch.Tensor:
        """Return the mask of the ranks of a layer, [B, 1, R]. counts: ranks of each joined adapter in the layer."""
        if counts not in self._masks:
            assert self.mask is not None
            self._masks[counts] = self.mask.repeat_interleave(torch.tensor(counts).to(self.mask.device), 1)[:, None]
        return self._masks[counts]


class RowAdapters:
    """Adapters of a model of transformers, by name. Without rows that take one nothing is computed."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers: dict[str, _Layer] = {}
        self._ranks: dict[str, int] = {}
        self._joined: tuple[str, ...] = ()
        """Adapters whose matrices are joined, in this order."""

    def check(self, name: str) -> None:
        """Raise DataError for an adapter that is not loaded."""
        if name not in self._ranks:
            raise DataError(f"no adapter {name} is loaded; loaded: {', '.join(self._ranks) or 'none'}")

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter in the precision of the model. Raises DataError for one that does not fit, or is loaded."""
        if name in self._ranks:
            raise DataError(f"adapter {name} is loaded already")
        found = read_adapter(folder, self._model)
        for path, pair in found.items():
            if path not in self._layers:
                self._layers[path] = _Layer(self._model.get_submodule(path))
            self._layers[path].adapters[name] = pair
        self._ranks[name] = max(len(pair.down) for pair in found.values())

    def drop(self, name: str) -> None:
        """Unload an adapter. Raises DataError for one that is not loaded."""
        self.check(name)
        del self._ranks[name]
        for path, layer in list(self._layers.items()):
            layer.adapters.pop(name, None)
            if not layer.adapters:
                self._layers.pop(path).hook.remove()
        self._join(())

    @contextmanager
    def applied(self, rows: Sequence[str], tokens: int) -> Iterator[None]:
        """Apply the adapter of each row, "" for none, in a forward pass over `tokens` tokens a row."""
        plan = self._plan(rows, tokens) if any(rows) else None
        try:
            for layer in self._layers.values():
                layer.plan = plan
            yield
        finally:
            for layer in self._layers.values():
                layer.plan = None

    def _plan(self, rows: Sequence[str], tokens: int) -> _Plan:
        names = tuple(dict.fromkeys(filter(None, rows)))
        plan = _Plan(len(rows), tokens)
        if len(names) == 1 and all(rows):
            plan.groups = [(names[0], None)]
        elif tokens > 1:
            for name in names:
                numbers = [number for number, row in enumerate(rows) if row == name]
                plan.groups.append((name, torch.tensor(numbers, device=self._model.device)))
        else:
            self._join_for(names)
            chosen = [[name == row for name in self._joined] for row in rows]
            plan.mask = torch.tensor(chosen, dtype=self._model.dtype, device=self._model.device)
        return plan

    def _join_for(self, names: tuple[str, ...]) -> None:
        """Join the matrices of these adapters, unless those that are joined have them, and not many more."""
        wanted, joined = (sum(self._ranks[name] for name in each) for each in (names, self._joined))
        if joined > SPARE * wanted or not set(names) <= set(self._joined):
            self._join(names)

    def _join(self, names: tuple[str, ...]) -> None:
        self._joined = names
        for layer in self._layers.values():
            layer.join(names)


class _Layer:
    """A linear layer with adapters, by name. plan: of the forward pass that runs."""

    def __init__(self, layer: Any) -> None:
        self.adapters: dict[str, Pair] = {}
        self.plan: _Plan | None = None
        self._joined: Pair | None = None
        self._counts: tuple[int, ...] = ()
        self.hook = layer.register_forward_hook(self._add)

    def join(self, names: tuple[str, ...]) -> None:
        """Join the matrices of adapters: down [R, in], up [out, R], R the sum of their ranks."""
        found = [self.adapters[name] for name in names if name in self.adapters]
        self._counts = tuple(len(self.adapters[name].down) if name in self.adapters else 0 for name in names)
        self._joined = None
        if found:
            self._joined = Pair(torch.cat([each.down for each in found]), torch.cat([each.up for each in found], 1))

    def _add(self, _: Any, given: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        """Return output + x down' up', where each row has its own. given: x [B, T, in] or [B T, in]."""
        plan = self.plan
        if plan is None:
            return None
        x = given[0].reshape(plan.rows, plan.tokens, -1)
        if plan.mask is not None:
            if self._joined is None:
                return None
            low = torch.nn.functional.linear(x, self._joined.down) * plan.ranks(self._counts)
            return output + torch.nn.functional.linear(low, self._joined.up).view_as(output)
        for name, rows in plan.groups:
            pair = self.adapters.get(name)
            if pair is None:
                continue
            added = pair(x if rows is None else x[rows])
            if rows is None:
                return output + added.view_as(output)
            output.view(plan.rows, plan.tokens, -1).index_add_(0, rows, added)
        return output
