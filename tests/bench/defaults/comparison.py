"""Comparison of the shipped settings with the grid: one line a set, from the results that were written so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean
from typing import Any

Line = dict[str, Any]


def best_of(grid: Iterable[Line], choice: str = "accuracy") -> Line | None:
    """Return the setting of a grid with the highest mean of `choice` over seeds; of equal ones that of fewest tokens.

    grid: lines of one set. Only settings with the most seeds take part. The line has the means over seeds of accuracy,
    macro_f1, tokens and cpu_seconds, and the number of seeds.
    """
    settings: dict[tuple[int, float], list[Line]] = defaultdict(list)
    for line in grid:
        settings[line["epochs"], line["lr"]].append(line)
    if not settings:
        return None
    most = max(map(len, settings.values()))
    full = [lines for lines in settings.values() if len(lines) == most]
    found = max(full, key=lambda lines: (_mean(lines, choice), -_mean(lines, "tokens")))
    means = {name: _mean(found, name) for name in ("accuracy", "macro_f1", "tokens", "cpu_seconds")}
    return {"epochs": found[0]["epochs"], "lr": found[0]["lr"], "seeds": len(found), **means}


def compare(grid: list[Line], shipped: list[Line]) -> list[Line]:
    """Return one line for each set with results of both: what was chosen, accuracy, difference and cost ratio.

    Differences are in points of accuracy; the ratio is of tokens trained, shipped settings over the grid's best run.
    The grid's best is the best on test, which a choice by the validation split need not find.
    """
    made = []
    for name in dict.fromkeys(line["set"] for line in shipped):
        own = [line for line in shipped if line["set"] == name]
        points = [line for line in grid if line["set"] == name]
        best, by_valid = best_of(points), best_of(points, "valid_accuracy")
        if best is None or by_valid is None:
            continue
        accuracy = _mean(own, "accuracy")
        made.append(
            {
                "set": name,
                "rows": own[0]["rows"],
                "classes": own[0]["classes"],
                "chosen": describe(own[0]["chosen"]),
                "passes": round(_mean(own, "passes"), 1),
                "accuracy": _percent(accuracy),
                "best of the grid": _percent(best["accuracy"]),
                "its setting": f"{best['epochs']} epochs, {best['lr']:g}",
                "best by valid": _percent(by_valid["accuracy"]),
                "difference": f"{100 * (accuracy - best['accuracy']):+.1f}",
                "tokens ratio": round(_mean(own, "tokens") / best["tokens"], 1),
                "settings tried": len({(line["epochs"], line["lr"]) for line in points}),
                "seeds": f"{len(own)}/{best['seeds']}",
            }
        )
    return made


def describe(chosen: dict[str, str]) -> str:
    """Describe the settings that matter in a few words."""
    if chosen.get("method") == "head":
        return "head on frozen features"
    parts = [
        f"at most {chosen['epochs']} epochs",
        f"lr {float(chosen['lr']):g}",
        f"{chosen['batch_tokens']} tokens a step",
    ]
    if int(chosen.get("frozen_layers", "0")) > 0:
        parts.append(f"{chosen['frozen_layers']} layers frozen")
    return ", ".join([*parts, f"length {chosen['max_length']}"])


def _mean(lines: list[Line], name: str) -> float:
    return mean(float(line[name]) for line in lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
