"""Tables of what the serving bench has measured: medians over rounds, ratios taken within a round."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from tests.bench.tables import Rounds

OFFLINE = "offline"


def load_table(rounds: Rounds) -> list[dict[str, Any]]:
    """One line a contender; a ratio is the median of those of each round."""
    rate = {name: [one["requests_s"] for one in found] for name, found in rounds.items()}
    lines = []
    for name, found in rounds.items():
        errors: dict[str, int] = {}
        for one in found:
            errors |= {status: errors.get(status, 0) + count for status, count in one["errors"].items()}
        line: dict[str, Any] = {"contender": name, "requests/s": _spread(rate[name])}
        for key in ("p50_ms", "p99_ms"):
            line[key.replace("_", " ")] = _median(found, key)
        line["errors"] = ", ".join(f"{count} x {status}" for status, count in errors.items()) or 0
        for other in ("ray-pipeline", "litserve", OFFLINE):
            of = [mine / theirs for mine, theirs in zip(rate[name], rate.get(other, []), strict=False) if theirs]
            form = "{:.0%}" if other == OFFLINE else "{:.2f}"
            line["of offline" if other == OFFLINE else f"/ {other}"] = form.format(median(of)) if of else ""
        lines.append(line)
    return lines


def single_table(rounds: Rounds) -> list[dict[str, Any]]:
    """The median of the rounds' medians, and its ratio to the bare ones."""
    p50 = {name: median(one["p50_ms"] for one in found) for name, found in rounds.items()}
    return [
        {"one text": name, "p50 ms": round(p50[name], 1), "p99 ms": _median(found, "p99_ms")}
        | {f"/ {other}": round(p50[name] / p50[other], 2) for other in p50 if other.startswith("bare")}
        for name, found in rounds.items()
    ]


def overload_table(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One line."""
    refused = found["refused"]
    others = {status: count for status, count in found["errors"].items() if status not in ("429", "503")}
    return [
        {
            "capacity, requests/s": round(found["capacity"], 1),
            "arrivals/s": round(found["sent"] / found["seconds"]),
            "goodput, requests/s": round(found["requests_s"], 1),
            "p50 ms": round(found["p50_ms"]),
            "p99 ms": round(found["p99_ms"]),
            "refused": f"{refused['share']:.1%}",
            "refusal p50 ms": round(refused["p50_ms"], 1) if refused["share"] else "",
            "refusal p99 ms": round(refused["p99_ms"], 1) if refused["share"] else "",
            "client late p99 ms": round(found["lag_p99_ms"], 1),
            "other errors": ", ".join(f"{count} x {status}" for status, count in others.items()) or 0,
            "replica MiB before": round(found["before_mib"]),
            "after": round(found["after_mib"]),
        }
    ]


def _spread(values: list[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def _median(found: list[dict[str, Any]], key: str) -> Any:
    return round(median(one[key] for one in found), 1) if all(key in one for one in found) else ""
