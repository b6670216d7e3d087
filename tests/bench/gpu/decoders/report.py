"""Part of the GPU benchmark about decoders: checks and speeds, each in a process of its own and within its seconds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.gpu.decoders.speed import WAYS, missing

CHECK_SECONDS, SPEED_SECONDS = 150.0, 55.0
NOMINAL = 989e12
"""bf16 operations a second of an H100 or H200 SXM, without sparsity, as NVIDIA states them."""
Run = Callable[[list[str], float], tuple[int, str]]


def measure_decoders(
    device: str, steps: int, run: Run, left: Callable[[], float], peak: float, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run the checks and measure each way while time is left. save: receives what was found so far, after each.

    run: runs a Python module for at most some seconds; left: seconds that are left; peak: operations a second of a
    matmul.
    """
    checked, measured = ("small", "1b") if device == "cuda" else ("tiny", "tiny")
    found: dict[str, Any] = {"checks": {}, "speeds": {}}
    with tempfile.TemporaryDirectory(prefix="raypath-gpu-") as place:
        for shape in dict.fromkeys((checked, measured)):
            status, printed = run([f"{__package__}.base", shape, device, f"{place}/{shape}"], min(60.0, left()))
            if status:
                found["failed"] = f"no base {shape}: {_last(printed)}"
                return found
        out = Path(place, "out.json")
        status, printed = run(
            [f"{__package__}.checks", checked, device, f"{place}/{checked}", str(out)], min(CHECK_SECONDS, left())
        )
        found["checks"] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        if status:
            found["checks"]["all of them"] = {"ok": False, "failed": _last(printed)}
        save(found)
        for way in WAYS:
            found["speeds"][way] = _speed(way, measured, device, steps, run, left, peak, Path(place))
            save(found)
    return found


def _speed(
    way: str, shape: str, device: str, steps: int, run: Run, left: Callable[[], float], peak: float, place: Path
) -> dict[str, Any]:
    if lacks := missing(way):
        return {"skipped": f"{', '.join(lacks)} is not installed"}
    if left() < 20:
        return {"failed": "no time left"}
    out = place / "speed.json"
    out.unlink(missing_ok=True)
    given = [shape, device, str(place / shape), way, str(steps), str(out)]
    status, printed = run([f"{__package__}.speed", *given], min(SPEED_SECONDS, left()))
    if status:
        return {"failed": _last(printed)}
    one = json.loads(out.read_text(encoding="utf-8"))
    rate = one["operations"] / one["seconds"]
    return {
        "tokens/s": round(one["tokens"] / one["seconds"]),
        "ms/step": round(1e3 * one["seconds"] / one["steps"], 1),
        "of measured peak": f"{rate / peak:.1%}" if rate else "",
        "of nominal peak": f"{rate / NOMINAL:.1%}" if rate and device == "cuda" else "",
        "GPU MiB": round(one["memory"] / (1 << 20)),
        "recompilations": one["recompilations"],
        "first loss": round(one["losses"][0], 3),
        "last loss": round(one["losses"][1], 3),
    }


def tables(found: dict[str, Any]) -> str:
    """Write what was found as two Markdown tables; speeds have their ratio to TRL in the same mode."""
    rows = ["| check | value | at most |  |", "| --- | ---: | ---: | --- |"]
    for name, one in found["checks"].items():
        note = one.get("failed") or one.get("skipped") or ("ok" if one["ok"] else "TOO LARGE")
        rows.append(f"| {name.replace('_', ' ')} | {one.get('value', '')} | {one.get('most', '')} | {note} |")
    names = ["tokens/s", "/ TRL", "ms/step", "of measured peak", "of nominal peak", "GPU MiB", "recompilations"]
    rows += ["", f"| training | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for way, one in found["speeds"].items():
        if note := one.get("failed") or one.get("skipped"):
            rows.append(f"| {way} | {note} |{' |' * (len(names) - 1)}")
            continue
        other = found["speeds"].get("trl full" if "full" in way else "trl lora", {}).get("tokens/s")
        ratio = f"{one['tokens/s'] / other:.2f}" if other else ""
        values = [ratio if name == "/ TRL" else str(one[name]) for name in names]
        rows.append(f"| {way} | {' | '.join(values)} |")
    return "\n".join(rows)


def is_failed(found: dict[str, Any]) -> bool:
    """Return True if a check failed, or the training that `finetune` does could not be measured."""
    bad = any(not one["ok"] for one in found["checks"].values()) or not found["checks"]
    return bad or "failed" in found or "failed" in found["speeds"].get("full", {"failed": ""})


def _last(printed: str) -> str:
    return printed.strip().rpartition("\n")[2][:200]
