"""Packing: every row once, budgets kept, the same plan for everybody."""

import numpy as np
import pytest

from components.training.packing import pack, plan_epoch, plan_inference

LENGTHS = np.random.default_rng(0).integers(3, 129, size=1000)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_row_is_in_exactly_one_batch(ranks: int) -> None:
    steps = plan_epoch(LENGTHS, 2048, seed=1, epoch=0, ranks=ranks)
    rows = np.concatenate([rows for step in steps for rows in step])
    assert sorted(rows) == list(range(1000))
    assert all(len(step) == ranks for step in steps)


def test_no_batch_is_over_its_budget_unless_one_row_is() -> None:
    for rows in pack(LENGTHS, np.argsort(LENGTHS), 512):
        assert LENGTHS[rows].max() * len(rows) <= 512
    assert [len(b) for b in pack(np.array([600, 1]), np.array([0, 1]), 512)] == [1, 1]


def test_padding_is_a_small_share() -> None:
    steps = plan_epoch(LENGTHS, 2048, seed=1, epoch=0, ranks=1)
    padded = sum(LENGTHS[rows].max() * len(rows) for step in steps for rows in step)
    assert LENGTHS.sum() / padded > 0.9


def test_the_plan_depends_on_seed_and_epoch_alone() -> None:
    def flat(seed: int, epoch: int) -> list[int]:
        return [int(r) for step in plan_epoch(LENGTHS, 2048, seed, epoch, 1) for r in step[0]]

    assert flat(1, 0) == flat(1, 0)
    assert flat(1, 0) != flat(1, 1)
    assert flat(1, 0) != flat(2, 0)


def test_inference_takes_the_longest_first() -> None:
    batches = plan_inference(LENGTHS, 1024)
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert LENGTHS[batches[0]].max() == LENGTHS.max()
