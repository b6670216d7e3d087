"""load_token_dataset: the targets of each kind as arrays, and as tensors of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raypath.components import DataError
from raypath.components.training.batches.token_dataset import load_token_dataset

SET, NUMBER = pa.list_(pa.int32()), pa.list_(pa.float32())


def stored(folder: Path, targets: list[Any] | None, kind: Any = None) -> Path:
    """Two files of rows with 1, 2, 3, ... tokens, as preprocess writes them."""
    count = 4 if targets is None else len(targets)
    columns = {"input_ids": pa.array([[101] * (n + 1) for n in range(count)], pa.list_(pa.int32()))}
    if targets is not None:
        columns["target"] = pa.array(targets, kind)
    table = pa.table(columns)
    pq.write_table(table.slice(0, 2), folder / "00000.parquet")
    pq.write_table(table.slice(2), folder / "00001.parquet")
    return folder


def test_classes(tmp_path: Path) -> None:
    rows = load_token_dataset(stored(tmp_path, [2, 0, 1], pa.int32()), 3)
    assert (rows.targets.dtype, rows.targets.tolist()) == (np.int64, [2, 0, 1])
    assert rows.lengths.tolist() == [1, 2, 3]


def test_sets_are_multi_hot(tmp_path: Path) -> None:
    rows = load_token_dataset(stored(tmp_path, [[0, 3], [], [1], [2, 3]], SET), 5)
    assert rows.targets.dtype == np.float32
    assert rows.targets.tolist() == [[1, 0, 0, 1, 0], [0] * 5, [0, 1, 0, 0, 0], [0, 0, 1, 1, 0]]
    batch = rows.subset(np.array([3, 1])).batch(np.array([1, 0]), pad=7)
    assert torch.equal(batch["targets"], torch.tensor([[0.0] * 5, [0.0, 0, 1, 1, 0]]))
    assert batch["input_ids"].tolist() == [[101, 101, 7, 7], [101] * 4]
    assert batch["attention_mask"].sum().item() == 6


def test_empty_sets_alone(tmp_path: Path) -> None:
    assert load_token_dataset(stored(tmp_path, [[], [], []], SET), 2).targets.tolist() == [[0, 0]] * 3


def test_numbers(tmp_path: Path) -> None:
    rows = load_token_dataset(stored(tmp_path, [[1.5, -2], [0, 1e30], [3, 4]], NUMBER))
    assert (rows.targets.dtype, rows.targets.shape) == (np.float32, (3, 2))
    assert rows.batch(np.array([2, 0]), pad=0)["targets"].tolist() == [[3.0, 4.0], [1.5, -2.0]]


def test_without_targets(tmp_path: Path) -> None:
    rows = load_token_dataset(stored(tmp_path, None))
    assert (len(rows), rows.targets.dtype, rows.targets.tolist()) == (4, np.int64, [0] * 4)
    assert rows.batch(np.array([0]), pad=0)["targets"].tolist() == [0]


@pytest.mark.parametrize(
    ("targets", "kind", "labels", "said"),
    [
        ([[1.0], [float("nan")], [2.0]], NUMBER, 0, "a NaN or infinite target in row 2"),
        ([[1.0], [2.0], [float("-inf")]], NUMBER, 0, "a NaN or infinite target in row 3"),
        ([[1.0], [2.0, 3.0], [4.0]], NUMBER, 0, "different numbers of targets"),
        ([[0], [4], []], SET, 4, "has class number 4, but only 4 labels"),
    ],
)
def test_targets_that_do_not_fit(tmp_path: Path, targets: list[Any], kind: Any, labels: int, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_token_dataset(stored(tmp_path, targets, kind), labels)
    assert caught.value.fix


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        load_token_dataset(stored(tmp_path, [], SET), 2)
