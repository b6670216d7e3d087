"""Packing: every row once, budgets kept, the same plan for everybody."""

import numpy as np
import pytest

from raypath.components.training.batches.sampler import pack, plan_epoch, plan_inference, share

LENGTHS = np.random.default_rng(0).integers(3, 129, size=1000)


def test_every_row_is_in_exactly_one_step() -> None:
    steps = plan_epoch(LENGTHS, 2048, seed=1, epoch=0)
    assert sorted(np.concatenate(steps)) == list(range(1000))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_a_step_in_as_many_micro_batches_each(ranks: int) -> None:
    for step in plan_epoch(LENGTHS, 2048, seed=1, epoch=0):
        shares = share(LENGTHS, step, ranks, 512)
        assert len(shares) == ranks
        assert len({len(mine) for mine in shares}) == 1
        assert sorted(row for mine in shares for cut in mine for row in cut) == sorted(step)
        assert all(len(cut) * LENGTHS[cut].max(initial=0) <= 512 for mine in shares for cut in mine)
        loads = [sum(LENGTHS[cut].sum() for cut in mine) for mine in shares]
        assert max(loads) - min(loads) <= LENGTHS[step].max(), "one has at most a row more to do"


def test_no_batch_is_over_its_budget_unless_one_row_is() -> None:
    for rows in pack(LENGTHS, np.argsort(LENGTHS), 512):
        assert LENGTHS[rows].max() * len(rows) <= 512
    assert [len(b) for b in pack(np.array([600, 1]), np.array([0, 1]), 512)] == [1, 1]


def test_a_batch_is_filled_to_its_budget_padding_counted() -> None:
    lengths = np.array([4, 4, 4, 1, 3, 3])
    assert [rows.tolist() for rows in pack(lengths, np.arange(6), 8)] == [[0, 1], [2, 3], [4, 5]]
    assert [rows.tolist() for rows in pack(lengths, np.arange(6), 7)] == [[0], [1], [2], [3, 4], [5]]


def test_padding_is_a_small_share() -> None:
    steps = plan_epoch(LENGTHS, 2048, seed=1, epoch=0)
    padded = sum(LENGTHS[rows].max() * len(rows) for rows in steps)
    assert LENGTHS.sum() / padded > 0.9
    longest = [LENGTHS[rows].max() for rows in steps]
    assert np.mean(longest[: len(steps) // 2]) == pytest.approx(np.mean(longest), rel=0.2), "short and long ones mixed"


def test_the_plan_depends_on_seed_and_epoch_alone() -> None:
    def flat(seed: int, epoch: int) -> list[int]:
        return [int(r) for step in plan_epoch(LENGTHS, 2048, seed, epoch) for r in step]

    assert flat(1, 0) == flat(1, 0)
    assert flat(1, 0) != flat(1, 1)
    assert flat(1, 0) != flat(2, 0)


def test_inference_takes_the_longest_first() -> None:
    batches = plan_inference(LENGTHS, 1024)
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert LENGTHS[batches[0]].max() == LENGTHS.max()
