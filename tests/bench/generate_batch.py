"""Batch generation against its engine alone: `python -m tests.bench.generate_batch --help`.

The same conversations, in turns: all to the engine at once, and through the worker of `generate` (rendered, by chunks,
each written as a file). Both have loaded the model. Tokens a second, the median of the rounds, and their ratio.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.components.core.conversations import Message
from raypath.components.data.streaming.row_files import row_files
from raypath.components.generate import plan_generation
from raypath.components.inference.batch.chunks import TextRows
from raypath.components.inference.batch.responses import GenerationJob, Responder
from raypath.components.inference.batch.results import Results
from raypath.components.inference.generation.requests import Request
from raypath.components.models.base_models import base_folder
from raypath.components.models.conversion.packaged import CHAT
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.models.process import configure_process, cpu_count

WORDS = ("gull", "wing", "engine", "pilot", "runway", "damage", "report", "landing", "noise", "small", "bird", "left")


def conversations(count: int, words: int) -> list[list[Message]]:
    """Conversations that begin differently and have responses of several lengths."""
    rng = random.Random(0)
    return [
        [
            {
                "role": "user",
                "content": f"{row} {' '.join(rng.choices(WORDS, k=words))}. {rng.randint(1, 8)} words.",
            }
        ]
        for row in range(count)
    ]


def worker_of(model: Path, asked: list[list[Message]], tokens: int, folder: Path) -> Responder:
    """The worker of a step that responds to these conversations. folder: of its files."""
    rows = [{"row": n, "record": "{}", "request": Request(each).dumps()} for n, each in enumerate(asked)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "prompts.parquet")
    job = GenerationJob(
        source=str(model),
        tracking="",
        signing=None,
        workers=1,
        threads=cpu_count(),
        rows=TextRows(row_files([folder / "prompts.parquet"])),
        chunks=tuple(plan_generation(len(asked), 256)),
        results=Results(folder / "chunks"),
        attempts=folder / "attempts",
        settings={"max_new_tokens": tokens},
    )
    return Responder(job)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.generate_batch", description=(__doc__ or "")[:60])
    parser.add_argument("--base", default=CHAT)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--words", type=int, default=80, help="of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of a response")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    configure_process(cpu_count())
    asked = conversations(chosen.rows, chosen.words)
    with tempfile.TemporaryDirectory(prefix="raypath-batch-") as name:
        model = Path(name) / "model"
        shutil.copytree(base_folder(chosen.base), model)
        write_metadata(model, ModelMetadata(task="text_generation", labels=(), max_length=2048))
        worker = worker_of(model, asked, chosen.tokens, Path(name))
        speeds: dict[str, list[float]] = {"engine": [], "step": []}
        for turn in range(chosen.rounds):
            began = time.perf_counter()
            made = sum(each.tokens for each in worker.model.generate(asked, max_new_tokens=chosen.tokens))
            speeds["engine"].append(made / (time.perf_counter() - began))
            worker.job = dataclasses.replace(worker.job, attempts=Path(name) / f"attempts-{turn}")
            began = time.perf_counter()
            for number in range(len(worker.job.chunks)):
                worker.run(number)
            speeds["step"].append(made / (time.perf_counter() - began))
            print(turn, made, {each: round(values[-1], 1) for each, values in speeds.items()}, flush=True)
    found = {each: round(statistics.median(values), 1) for each, values in speeds.items()}
    ratio = statistics.median(step / alone for step, alone in zip(speeds["step"], speeds["engine"], strict=True))
    chunks = [chunk.rows for chunk in worker.job.chunks]
    print(json.dumps({"tokens_per_second": found, "ratio": round(ratio, 3), "chunks": chunks}))


if __name__ == "__main__":
    main()
