"""Tables of the benchmark: medians over the rounds, ratios within a round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from tests.bench.generate.prompts import Cell

OFFLINE, OURS = "offline", "raypath"
Rounds = dict[str, list[list[dict[str, Any]]]]
"""Contender -> round -> the figures of each cell."""


def tables(rounds: Rounds, cells: Sequence[Cell]) -> Iterator[list[dict[str, Any]]]:
    """Yield a table for each size of request: a line for each contender and number of clients."""
    names = list(dict.fromkeys(cell.name for cell in cells))
    for name in names:
        yield [
            _line(rounds, cell, column, contender)
            for column, cell in enumerate(cells)
            if cell.name == name
            for contender in rounds
        ]


def _line(rounds: Rounds, cell: Cell, column: int, name: str) -> dict[str, Any]:
    found = [each[column] for each in rounds[name]]
    line: dict[str, Any] = {
        "prompt + new": cell.name,
        "clients": cell.clients,
        "server": name,
        "tokens/s": _spread([each["tokens_s"] for each in found]),
        "first p50 ms": _number([each["first_p50_ms"] for each in found]),
        "first p95 ms": _number([each["first_p95_ms"] for each in found]),
        "ms/token": _number([each["token_ms"] for each in found if each["token_ms"] is not None], 1),
        "errors": sum(sum(each["errors"].values()) for each in found),
        "no text": sum(each.get("without_text", 0) for each in found),
    }
    for other in (OFFLINE, OURS):
        theirs = [each[column]["tokens_s"] for each in rounds.get(other, [])]
        mine = [each["tokens_s"] for each in found]
        ratios = [one / two for one, two in zip(mine, theirs, strict=False) if two]
        line[f"/ {other}"] = f"{median(ratios):.2f}" if ratios and name != other else ""
    return line


def _spread(values: list[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def _number(values: list[float], digits: int = 0) -> str:
    return f"{median(values):,.{digits}f}" if values else ""
