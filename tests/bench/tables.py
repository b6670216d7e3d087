"""What the bench has measured, as Markdown tables: medians over rounds, ratios taken within a round."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

Rounds = Mapping[str, list[dict[str, Any]]]
"""By contender, one measurement a round."""


def speeds(rounds: Rounds, peaks: list[dict[str, float]], mean_length: float) -> list[dict[str, Any]]:
    """One line a contender.

    Samples a second are tokens a second over the mean length of all rows: a stretch of an epoch may hold longer or
    shorter rows than the whole does. A ratio is the median of those of each round, so that a slow round slows both.
    """
    lines = []
    rate = {name: [r["tokens"] / r["seconds"] / mean_length for r in found] for name, found in rounds.items()}
    for name, found in rounds.items():
        shares = [
            r["operations"] / r["seconds"] / peak["bf16" if r["bf16"] else "fp32"]
            for r, peak in zip(found, peaks, strict=False)
        ]
        line = {
            "contender": name,
            "samples/s": round(median(rate[name]), 2),
            "min-max": f"{min(rate[name]):.1f}-{max(rate[name]):.1f}",
        }
        for other in ("trainer", "trainer-best", "bare"):
            if other in rate:
                line[f"/ {other}"] = round(median(map(_over, rate[name], rate[other])), 3)
        lines.append(
            line
            | {
                "of peak": f"{median(shares):.0%}" if shares else "",
                "GFLOP/s": round(median(r["operations"] / r["seconds"] for r in found) / 1e9, 1),
                "samples/CPU-s": round(median(r["tokens"] / r["cpu"] / mean_length for r in found), 2),
                "ms/step": round(median(1e3 * r["seconds"] / r["steps"] for r in found)),
                "padding": f"{median(1 - r['tokens'] / r['padded'] for r in found):.0%}",
                "rows": sum(r["rows"] for r in found),
                "peak RSS MiB": round(median(r["memory"] for r in found) / (1 << 20)),
            }
        )
        if any(r.get("device_memory") for r in found):
            lines[-1]["peak GPU MiB"] = round(median(r["device_memory"] for r in found) / (1 << 20))
    return lines


def starts(rounds: Rounds) -> list[dict[str, Any]]:
    """Seconds to the first optimizer step: from the call, and from the start of the process."""
    plain = rounds.get("plain", [])
    return [
        {
            "start-up": name,
            "from the call, s": round(median(r["seconds"] for r in found), 2),
            "min-max": f"{min(r['seconds'] for r in found):.2f}-{max(r['seconds'] for r in found):.2f}",
            "/ plain": _median_ratio("seconds", found, plain),
            "from process start, s": round(median(r["process"] for r in found), 2),
            "/ plain ": _median_ratio("process", found, plain),
            "peak RSS MiB": round(median(r["memory"] for r in found) / (1 << 20)),
            "rounds": len(found),
        }
        for name, found in rounds.items()
    ]


def qualities(rounds: Rounds) -> list[dict[str, Any]]:
    """Mean (min-max) over the seeds of what the test part says, and what a whole training took."""
    figures = {"accuracy": "{:.3f}", "macro_f1": "{:.3f}", "log_loss": "{:.3f}", "seconds": "{:.0f}"}
    return [
        {
            "contender": name,
            **{key: _spread([r[key] for r in found], form.format) for key, form in figures.items()},
            "rows": found[0]["rows"],
            "steps": found[0]["steps"],
            "seeds": len(found),
            "peak RSS MiB": round(median(r["memory"] for r in found) / (1 << 20)),
        }
        for name, found in rounds.items()
    ]


def markdown(lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines with the same keys as a table."""
    rows = list(lines)
    head = [key.strip() for key in rows[0]]
    body = [[str(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))


def publish(name: str, made: Mapping[str, Any], out: Path) -> None:
    """Print what was measured, and leave all of it in NAME.json."""
    print(f"\n{json.dumps(made['machine'])}")
    for table in made["tables"]:
        print(f"\n{markdown(table)}")
    (out / f"{name}.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
    print(f"\n{out / f'{name}.json'}")


def say(line: str) -> None:
    """Tell how far it is, beside what is printed."""
    print(line, file=sys.stderr, flush=True)


def _over(mine: float, other: float) -> float:
    return mine / other


def _median_ratio(key: str, found: list[dict[str, Any]], plain: list[dict[str, Any]]) -> Any:
    """The ratio of the medians."""
    return round(median(r[key] for r in found) / median(r[key] for r in plain), 2) if plain else ""


def _spread(values: list[float], form: Callable[[float], str]) -> str:
    return f"{form(mean(values))} ({form(min(values))}-{form(max(values))})"
