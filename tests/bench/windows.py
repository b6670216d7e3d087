"""Memory of a training over many tokens: `python -m tests.bench.windows [TOKENS] [STEPS]`.

Writes made-up token ids (100 million by default) as `preprocess` writes them, and trains a tiny BERT on them for some
steps of each window of an epoch: memory is that of the process, before the rows are opened and at its peak. The plan of
the epoch, over all rows, is timed alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.epoch_plan import EpochPlan
from raypath.components.training.batches.token_dataset import load_token_dataset
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import start_training
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime.memory import _peak_rss, reset_peak
from tests.tiny import LABELS, tiny_bert

LEAST, MOST, GROUP = 20, 80, 65_536
MIB = 1 << 20


def write(folder: Path, tokens: int) -> int:
    """Rows of 20 to 80 tokens, whose class is in their first; returns their number."""
    rng, schema = np.random.default_rng(0), pa.schema({"input_ids": pa.list_(pa.int32()), "target": pa.int32()})
    rows = 0
    with TableWriter(folder, schema) as writer:
        while tokens > 0:
            lengths = rng.integers(LEAST, MOST, GROUP)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            targets = rng.integers(0, 2, GROUP).astype(np.int32)
            ids = rng.integers(1_000, 30_000, offsets[-1]).astype(np.int32)
            ids[offsets[:-1]] = 2_000 + targets
            writer.write(pa.table([pa.ListArray.from_arrays(offsets, pa.array(ids)), pa.array(targets)], schema))
            rows, tokens = rows + GROUP, tokens - int(offsets[-1])
    return rows


def main(tokens: int, steps: int) -> None:
    """Write, train, print."""
    with tempfile.TemporaryDirectory(prefix="raypath-windows-") as place:
        folder = Path(place)
        count = write(folder / "train", tokens)
        write(folder / "valid", 1_000_000)
        base = tiny_bert(folder)
        task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=128))
        params = ResolvedParams(epochs=1, batch_tokens=8_192, memory="full", frozen_layers=-1)
        torch.set_num_threads(1)
        reset_peak()
        before, began = _peak_rss(), time.perf_counter()
        rows, valid = (load_token_dataset(folder / name) for name in ("train", "valid"))
        opened, opened_at = _peak_rss(), time.perf_counter()
        EpochPlan(rows, params.batch_tokens, 0, 0)
        planned = time.perf_counter() - opened_at
        training = start_training(TrainingJob(task.fit(rows.targets), base, rows, valid, params, seed=0, threads=1))
        [plan] = training.epochs
        chosen = np.linspace(0, len(plan) - 1, steps).astype(int)
        started = time.perf_counter()
        for step in chosen:
            training._step(0, int(step), plan[int(step)])
        took = time.perf_counter() - started
        training.validate()
        size = sum(path.stat().st_size for path in (folder / "train").iterdir())
        windows = getattr(plan, "windows", [])
        print(f"{count:,} rows, {int(rows.lengths.sum(dtype=np.int64)):,} tokens, {size / MIB:,.0f} MiB of Parquet")
        print(f"opened in {opened_at - began:.1f} s at a peak of {(opened - before) / MIB:,.0f} MiB more")
        print(f"{len(plan):,} steps in {len(windows)} windows, planned in {planned:.1f} s")
        print(f"{steps} steps over all windows in {took:.1f} s: peak {(_peak_rss() - before) / MIB:,.0f} MiB more")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(given[0] if given else 100_000_000, given[1] if len(given) > 1 else 200)
