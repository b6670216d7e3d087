"""A search over heads against one epoch of the whole model: `python -m tests.bench.heads [trials]`.

On product reviews with MiniLM and all training rows: the features of the frozen encoder are computed once, then heads
are searched at random (learning rate, factor of the head), each trained for an epoch; then one epoch of `finetune` with
every weight. 50 heads are to cost less than that epoch. Prints seconds; about three minutes on two quiet cores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from raypath.components.extract import ExtractParams, extract
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.tune import Span, TuneParams, tune
from tests.bench.reviews import BASE
from tests.bench.sweep import context, own_ray, prepared, settled


def timed(folder: Path, step: Any, *given: Any) -> tuple[Any, float]:
    """What a step made, and its seconds."""
    ctx, began = context(folder, step.name, 0), time.perf_counter()
    made = step.fn(ctx, *given)
    return settled(ctx, made), time.perf_counter() - began


def main(trials: int) -> None:
    """Features, the search, the epoch."""
    head = ResolvedParams(base=BASE, method="head", epochs=1)
    whole = ResolvedParams(base=BASE, frozen_layers=-1, epochs=1)
    search = TuneParams(
        trials=trials,
        rows=0,
        valid_rows=0,
        epochs=0,
        rungs=1,
        search="random",
        scheduler="none",
        lr=(1e-5, 1e-3),
        space={"head_factor": Span(low=1, high=100)},
    )
    with own_ray() as folder:
        parts = prepared(folder, 0)
        features, first = timed(folder, extract, parts, ExtractParams.of(head))
        found, second = timed(folder, tune, features.train, features.valid, head, search)
        _, third = timed(folder, finetune, parts.train, parts.valid, None, whole)
    print(f"features of {parts.train.rows + parts.valid.rows} rows, once      {first:6.1f} s")
    print(f"{found.trials} heads, best {found.metric} {found.score:.4f}    {second:6.1f} s")
    print(f"one epoch of the whole model        {third:6.1f} s")
    print("the heads cost less than the epoch:", "yes" if second < third else "NO")
    print("the heads and the features:        ", "yes" if first + second < third else "NO")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
