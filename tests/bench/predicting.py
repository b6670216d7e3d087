"""Batch prediction against its limit, and its memory: `python -m tests.bench.predicting --help`.

Speed: the step `predict` with a classifier of reviews, as `register` prepares it, over texts of which no two are the
same; and the limit, the same engine in one process fed 32 texts at a time. In turns; rows a second of the step are
those between its first worker's first row and the last row. Memory: a tiny model over ever more rows; PSS of this
process and all below it, Ray's servers and workers too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from raypath.components import Dataset
from raypath.components.core.context import NoTracker
from raypath.components.predict import PredictParams, predict
from tests.bench.memory import MIB, Watch, make_csv, settle, tree_memory
from tests.bench.reviews import context
from tests.bench.servers import BATCH, Setup
from tests.bench.serving import set_up


class Figures(NoTracker):
    """Keeps what the step notes."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def metrics(self, values: Any, step: int = 0) -> None:
        self.found |= values


def texts_of(setup: Setup, rows: int) -> list[str]:
    """Reviews, each with a number of its own before it."""
    return [f"{number} {setup.texts[number % len(setup.texts)]}" for number in range(rows)]


def dataset(folder: Path, texts: list[str]) -> Dataset:
    """The texts as the step `read` would hand them over."""
    import pyarrow as pa

    folder.mkdir()
    pq.write_table(pa.table({"text": texts}), folder / "part-0.parquet")
    return Dataset(uri=str(folder), rows=len(texts))


def by_step(folder: Path, model: str, data: Dataset, threads: int) -> dict[str, float]:
    """What a run of the step notes of itself, and its seconds as a whole."""
    figures, began = Figures(), time.perf_counter()
    ctx = replace(context(folder, "predict", threads), track=figures)
    predict.fn(ctx, data, PredictParams(model=model))
    return {**figures.found, "seconds": time.perf_counter() - began}


def limit(model: str, texts: list[str], threads: int) -> float:
    """Rows a second of TextTokenizer and Engine in this process, 32 texts at a time."""
    from raypath.components.data.tokenization.tokenizer import TextTokenizer
    from raypath.components.inference.engine import Engine
    from raypath.components.models.metadata import read_metadata

    engine, tokenizer = Engine(Path(model), threads), TextTokenizer(Path(model), read_metadata(Path(model)).max_length)
    engine.record(tokenizer.encode(texts[:BATCH]))
    began = time.perf_counter()
    for first in range(0, len(texts), BATCH):
        engine.record(tokenizer.encode(texts[first : first + BATCH]))
    return len(texts) / (time.perf_counter() - began)


def speed(place: Path, chosen: argparse.Namespace, threads: int) -> None:
    """Rounds of the step and of the limit in turns."""
    setup = set_up(place, chosen.model, threads, {}, precision=chosen.precision)
    texts = texts_of(setup, chosen.speed)
    data = dataset(place / "texts", texts)
    shares, steps, limits = [], [], []
    for number in range(chosen.rounds):
        folder = place / f"round-{number}"
        folder.mkdir()
        found = by_step(folder, setup.model, data, threads)
        steps.append(found["rows_per_second"])
        limits.append(limit(setup.model, texts, threads))
        shares.append(steps[-1] / limits[-1])
        print(f"predict {steps[-1]:.1f} rows/s ({found['seconds']:.1f} s in all), limit {limits[-1]:.1f}", flush=True)
    for name, values in (("predict, rows/s", steps), ("limit, rows/s", limits), ("share", shares)):
        print(f"{name:16} {statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")


def memory(place: Path, rows: int, model: str, threads: int) -> None:
    """One line: what `rows` rows took."""
    from raypath.components.read import ReadParams, read

    folder = place / f"rows-{rows}"
    folder.mkdir()
    make_csv(folder / "rows.csv", rows)
    ctx = context(folder, "read", threads)
    data = settle(ctx, read.fn(ctx, ReadParams(uri=str(folder / "rows.csv"))))
    while _workers():
        time.sleep(0.2)  # those of the run before end after it
    with Watch() as watch:
        found = by_step(folder, model, data, threads)
    print(f"{rows:>9,} rows   {found['seconds']:7.1f} s   peak {watch.peak / MIB:6.0f} MiB", flush=True)


def _workers() -> list[str]:
    """The processes on this machine that predict, by name; one that ends meanwhile has no command line."""
    found = psutil.process_iter(["name", "cmdline"])
    return [
        each.info["name"] for each in found if "MapWorker(MapBatches(Predictor" in " ".join(each.info["cmdline"] or [])
    ]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.predicting", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--speed", type=int, default=6_400, metavar="ROWS", help="0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="folder of a classifier of reviews; fine-tunes one if not given")
    parser.add_argument("--precision", default="auto", help="of that model")
    parser.add_argument("--memory", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], metavar="ROWS")
    chosen = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="raypath-predict-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place / "ray-token")}
        (place / "ray-token").touch(mode=0o600)
        (place / "ray-token").write_text("0" * 64)
        import ray

        root = Path(__file__).resolve().parents[2]
        more = {"env_vars": {"PYTHONPATH": str(root)}}
        ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=512 * MIB, runtime_env=more)
        try:
            if chosen.speed:
                speed(place, chosen, threads)
            if chosen.memory:
                from tests.tiny_classifier import tiny_classifier

                print(f"Ray at rest {tree_memory()[0] / MIB:.0f} MiB")
                model = tiny_classifier(place / "tiny").uri
                for rows in chosen.memory:
                    memory(place, rows, model, threads)
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
