"""Two processes train on rows that are read in windows: each row once an epoch, resumed by another number of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.training.batches.epoch_plan import EpochPlan
from raypath.components.training.batches.token_dataset import StreamedTokens, load_token_dataset
from tests.forks import forks
from tests.tiny import LABELS
from tests.tiny import rows as made_up

SETTINGS = {"epochs": 2, "lr": 1e-3, "batch_tokens": 9_000, "patience": 0, "checkpoint_seconds": 0.0, "memory": "full"}
COUNT, WINDOW, SEED = 4_500, 40_000, 3


def _train(rank: int, ranks: int, base: Path, place: Path, run: str, steps: int) -> None:
    """One of `ranks` processes, which notes the rows of each of its steps; rank 0 dies after `steps` where not 0."""
    import torch.distributed as dist

    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.loop import trainer
    from raypath.components.training.params import ResolvedParams

    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{place}/meet-{run}", rank=rank, world_size=ranks)
    mine: list[list[int]] = []
    divide = trainer.share

    def note(*given: Any) -> Any:
        cuts = divide(*given)
        mine.append([int(row) for cut in cuts[rank] for row in cut])
        (place / f"{run}-{rank}.json").write_text(json.dumps(mine))
        return cuts

    def end(step: int, *_: object) -> None:
        if step == steps:
            os._exit(9)

    trainer.share = note  # type: ignore[assignment]
    train = load_token_dataset(place / "rows", window=WINDOW)
    assert isinstance(train, StreamedTokens)
    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    params = ResolvedParams().override(SETTINGS)
    scratch = place / "scratch"
    job = TrainingJob(task, base, train, made_up(40, 1), params, SEED, 1, scratch=scratch, on_step=end)
    trainer.start_training(job).run()
    assert train.cache.size <= WINDOW
    if ranks > 1:
        dist.destroy_process_group()


def _run(base: Path, place: Path, run: str, ranks: int, steps: int = 0) -> list[list[list[int]]]:
    """The rows of each step, by rank."""
    processes = [forks().Process(target=_train, args=(rank, ranks, base, place, run, steps)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(10 if steps and process.exitcode is None and processes[0].exitcode else 240)
        process.kill()
    assert steps or [process.exitcode for process in processes] == [0] * ranks
    return [json.loads((place / f"{run}-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = made_up(COUNT)
    ids = pa.ListArray.from_arrays(pa.array(made.offsets, pa.int32()), pa.array(made.ids))
    table = pa.table({"input_ids": ids, "target": pa.array(made.targets, pa.int32())})
    with TableWriter(tmp_path / "rows", table.schema) as writer:
        writer.write(table)
    return tmp_path


@pytest.fixture
def plan(place: Path) -> list[list[int]]:
    """The steps of both epochs."""
    rows = load_token_dataset(place / "rows", window=WINDOW)
    epochs = [EpochPlan(rows, SETTINGS["batch_tokens"], SEED, epoch) for epoch in (0, 1)]  # type: ignore[arg-type]
    assert [len(epoch.windows) for epoch in epochs] == [3, 3]
    for epoch in epochs:
        assert sorted(np.concatenate(list(epoch)).tolist()) == list(range(COUNT))
    return [step.tolist() for epoch in epochs for step in epoch]


def _together(ranks: Sequence[list[list[int]]]) -> list[list[int]]:
    return [sorted(row for mine in step for row in mine) for step in zip(*ranks, strict=True)]


def test_two_processes_see_every_row_once_an_epoch_and_resume_as_one(
    base: Path, place: Path, plan: list[list[int]]
) -> None:
    """Killed in the second window of the first epoch, then resumed by one process."""
    killed = len(plan) // 4 + 1
    first = _run(base, place, "two", ranks=2, steps=killed)
    assert _together([mine[:killed] for mine in first]) == [sorted(step) for step in plan[:killed]]
    assert all(mine for ranks in first for mine in ranks[:killed]), "both have rows of each step"
    [rest] = _run(base, place, "one", ranks=1)
    assert killed - 1 <= len(plan) - len(rest) <= killed
    assert rest == plan[-len(rest) :]


def test_two_processes_agree_on_all_steps(base: Path, place: Path, plan: list[list[int]]) -> None:
    found = _run(base, place, "whole", ranks=2)
    assert _together(found) == [sorted(step) for step in plan]
