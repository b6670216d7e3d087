"""Rows that do not fit in memory: every row once an epoch, the same plan on any number of ranks, bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.batches.epoch_plan import EpochPlan, plan_validation
from raypath.components.training.batches.sampler import order_digest, plan_epoch, share
from raypath.components.training.batches.token_dataset import StreamedTokens, TokenDataset, load_token_dataset
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from tests.tiny import LABELS
from tests.tiny import rows as made_up

COUNT, WINDOW = 20_000, 70_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten row groups of short rows; some 200,000 tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 20, COUNT)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = pa.ListArray.from_arrays(offsets, pa.array(rng.integers(1000, 30_000, offsets[-1]), pa.int32()))
    table = pa.table({"input_ids": ids, "target": pa.array(rng.integers(0, 2, COUNT), pa.int32())})
    made = tmp_path_factory.mktemp("rows")
    with TableWriter(made, table.schema) as writer:
        writer.write(table)
    return made


@pytest.fixture
def streamed(folder: Path) -> StreamedTokens:
    found = load_token_dataset(folder, window=WINDOW)
    assert isinstance(found, StreamedTokens)
    return found


@pytest.fixture(scope="module")
def loaded(folder: Path) -> TokenDataset:
    found = load_token_dataset(folder)
    assert isinstance(found, TokenDataset)
    return found


def test_rows_of_one_window_have_the_plan_of_rows_in_memory(loaded: TokenDataset, folder: Path) -> None:
    plan = EpochPlan(loaded, 512, seed=3, epoch=2)
    assert order_digest([plan]) == order_digest([plan_epoch(loaded.lengths, 512, 3, 2)])
    assert isinstance(load_token_dataset(folder, window=int(loaded.offsets[-1])), TokenDataset)


def test_every_row_is_in_one_step_of_an_epoch(streamed: StreamedTokens) -> None:
    for epoch in (0, 1):
        plan = EpochPlan(streamed, 512, seed=1, epoch=epoch)
        assert len(plan.windows) >= 3
        assert sorted(np.concatenate(list(plan)).tolist()) == list(range(COUNT))
        assert len(list(plan)) == len(plan)
        for rows in plan:
            assert streamed.lengths[rows].max() * len(rows) <= 512


def test_a_plan_depends_on_seed_and_epoch_and_not_on_where_it_starts(streamed: StreamedTokens) -> None:
    plan, again = (EpochPlan(streamed, 512, seed=1, epoch=0) for _ in range(2))
    steps = list(plan)
    for n in (len(steps) - 1, 0, len(steps) // 2):
        assert again[n].tolist() == steps[n].tolist()
    assert again[1:3][1].tolist() == steps[2].tolist()
    digests = {order_digest([EpochPlan(streamed, 512, s, e)]) for s, e in ((1, 0), (1, 1), (2, 0))}
    assert len(digests) == 3
    first = {int(n) for n in np.searchsorted(streamed.blocks.starts, np.concatenate(steps[:20]), side="right")}
    later = {int(n) for n in np.searchsorted(streamed.blocks.starts, np.concatenate(steps[-20:]), side="right")}
    assert first.isdisjoint(later), "a step reads one window"


@pytest.mark.parametrize("ranks", [1, 3])
def test_ranks_divide_the_steps(streamed: StreamedTokens, ranks: int) -> None:
    seen: list[int] = []
    for step in EpochPlan(streamed, 512, seed=1, epoch=0):
        seen += [int(row) for mine in share(streamed.lengths, step, ranks, 128) for cut in mine for row in cut]
    assert sorted(seen) == list(range(COUNT))


def test_batches_are_those_of_rows_in_memory(streamed: StreamedTokens, loaded: TokenDataset) -> None:
    assert streamed.lengths.tolist() == loaded.lengths.tolist()
    assert streamed.targets.tolist() == loaded.targets.tolist()
    assert streamed.token_range == loaded.token_range
    assert (len(streamed), streamed.has_features) == (len(loaded), False)
    for rows in (np.array([19_999, 0, 5_000, 1]), np.array([7])):
        one, other = streamed.batch(rows, pad=9), loaded.batch(rows, pad=9)
        assert all(torch.equal(one[name], other[name]) for name in ("input_ids", "attention_mask", "targets"))
    few = np.sort(np.random.default_rng(0).permutation(COUNT)[:300])
    assert np.array_equal(streamed.subset(few).ids, loaded.subset(few).ids)


def test_features_are_streamed_with_their_rows(tmp_path: Path) -> None:
    count = 5_000
    flat = np.arange(count * 4, dtype=np.float32)
    features = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * 4, pa.array(flat))
    table = pa.table({"input_ids": pa.array([[1, 2]] * count, pa.list_(pa.int32())), "features": features})
    with TableWriter(tmp_path, table.schema) as writer:
        writer.write(table)
    rows = load_token_dataset(tmp_path, window=13_000)
    assert isinstance(rows, StreamedTokens)
    assert rows.has_features
    assert rows.batch(np.array([4_999, 3]), pad=0)["features"].tolist() == [
        [19_996.0, 19_997.0, 19_998.0, 19_999.0],
        [12.0, 13.0, 14.0, 15.0],
    ]
    assert rows.targets.tolist() == [0] * count


def test_memory_is_that_of_a_window_and_each_block_is_read_once_an_epoch(streamed: StreamedTokens) -> None:
    read: list[int] = []
    for step in EpochPlan(streamed, 512, seed=1, epoch=0):
        streamed.batch(step, pad=0)
        assert streamed.cache.size <= WINDOW
        read += [number for number in streamed.cache._cached if number not in read]
    assert sorted(read) == list(range(10))
    assert streamed.cache.reads == 10
    for batch in plan_validation(streamed, 512):
        streamed.batch(batch, pad=0)
    assert streamed.cache.reads <= 20


def test_validation_has_every_row_once_in_the_order_of_windows(streamed: StreamedTokens) -> None:
    plan = plan_validation(streamed, 512)
    assert sorted(np.concatenate(plan).tolist()) == list(range(COUNT))
    starts = [rows.min() for rows in plan]
    assert starts[-1] > starts[0]


def test_a_killed_training_over_windows_ends_with_the_same_weights(base: Path, tmp_path: Path) -> None:
    """Twelve steps in several windows, killed in the second of them."""
    everything = made_up(4_500)
    columns = {"input_ids": _lists(everything), "target": pa.array(everything.targets, pa.int32())}
    with TableWriter(tmp_path / "rows", pa.table(columns).schema) as writer:
        writer.write(pa.table(columns))

    def training(name: str) -> Training:
        task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
        params = ResolvedParams(epochs=1, lr=1e-3, batch_tokens=9_000, checkpoint_seconds=0.0, memory="full")
        rows = load_token_dataset(tmp_path / "rows", window=50_000)
        assert isinstance(rows, StreamedTokens)
        job = TrainingJob(task, base, rows, made_up(40, 1), params, seed=3, threads=1, scratch=tmp_path / name)
        return start_training(job)

    whole = training("whole")
    assert len(whole.epochs[0].windows) == 3  # type: ignore[attr-defined]
    metrics = whole.run()
    cut = training("cut")
    kill_at = len(cut.epochs[0]) // 2
    cut.job.on_step = _killer(kill_at)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = training("cut")
    steps: list[int] = []
    resumed.job.on_step = lambda done, *_: steps.append(done)
    assert resumed.run() == metrics
    assert steps[0] == kill_at
    weights = whole.model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in resumed.model.state_dict().items())


def _killer(step: int) -> Callable[..., None]:
    def kill(done: int, *_: object) -> None:
        if done == step:
            raise KeyboardInterrupt

    return kill


def _lists(rows: TokenDataset) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(rows.offsets, pa.int32()), pa.array(rows.ids))
