"""Decisions of the gate on metrics of generated text, from counts by row of two versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.artifacts import Dataset
from raypath.components.core.columns import Column, Role
from raypath.components.core.conversations import Conversation
from raypath.components.core.labels import LabelKind
from raypath.components.evaluation.generation import catalog
from raypath.components.evaluation.generation.stored import StoredCounts, save_counts
from raypath.components.inference.generation.evaluation.evidence import gather_answers
from raypath.components.registry.evidence import Decision, Rules, decide

ROWS = 200
COLUMNS = (Column(name="messages", kind="messages"), Column(name="region", kind="category", role=Role.SLICE))


def _shares(*shares: float) -> Any:
    """Counts of `exact_match`: so many rows are right, of each part of the rows."""
    parts = [np.arange(ROWS // len(shares)) < share * (ROWS // len(shares)) for share in shares]
    return np.stack([np.concatenate(parts), np.ones(ROWS)], axis=1)


def _losses(mean: float) -> Any:
    """Counts of `loss`: nats and tokens of rows that differ."""
    tokens = np.full(ROWS, 10.0)
    return np.stack([tokens * (mean + 0.3 * np.sin(np.arange(ROWS))), tokens], axis=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("rows")
    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    text = [Conversation(turns).dumps()] * ROWS  # type: ignore[arg-type]
    region = ["north"] * (ROWS // 2) + ["south"] * (ROWS // 2)
    pq.write_table(pa.table({"text": text, COLUMNS[1].stored: region}), folder / "00000.parquet")
    return Dataset(uri=str(folder), rows=ROWS, label_kind=LabelKind.NONE, columns=COLUMNS)


def _decided(folder: Path, data: Dataset, metric: str, new: Any, old: Any, **rules: float) -> Decision:
    rows = np.arange(ROWS)
    save_counts(folder, rows, {metric: old}, "{}")
    evidence = gather_answers(StoredCounts(rows, {metric: new}, "{}"), folder, True, data, metric)
    return decide(evidence, "version 1", Rules(**rules))


@pytest.mark.parametrize(
    ("metric", "new", "old", "promoted", "reason"),
    [
        ("exact_match", _shares(0.8), _shares(0.6), True, "exact_match 0.8000 against 0.6000 of version 1, better by"),
        ("exact_match", _shares(0.6), _shares(0.8), False, "worse by 0.2000"),
        ("exact_match", _shares(0.605), _shares(0.6), False, "wanted 90%"),
        ("exact_match", _shares(0.6), _shares(0.6), False, "equal"),
        ("loss", _losses(1.0), _losses(1.2), True, "loss 1.00"),
        ("loss", _losses(1.2), _losses(1.0), False, "worse by 0.2"),
    ],
)
def test_the_better_one_of_two_versions_is_champion(
    tmp_path: Path, data: Dataset, metric: str, new: Any, old: Any, promoted: bool, reason: str
) -> None:
    found = _decided(tmp_path, data, metric, new, old)
    assert found.promote is promoted
    assert reason in found.reason


def test_the_settings_of_the_gate_decide(tmp_path: Path, data: Dataset) -> None:
    close = _shares(0.62), _shares(0.6)
    chance = _decided(tmp_path, data, "exact_match", *close).chance
    assert 0.9 < chance < 0.99
    assert _decided(tmp_path, data, "exact_match", *close).promote
    assert not _decided(tmp_path, data, "exact_match", *close, confidence=0.99).promote
    assert _decided(tmp_path, data, "exact_match", _shares(0.6), _shares(0.6), confidence=0.5).promote


@pytest.mark.parametrize(("fall", "promoted"), [(0.04, True), (0.2, False)])
def test_a_slice_may_not_fall_also_of_metrics_up_to_100(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, fall: float, promoted: bool
) -> None:
    """`slice_margin` is a share of the metric's range: 0.05 is five points of chrF."""
    right = catalog.METRICS["exact_match"]
    hundredfold = replace(right, combine=lambda counts: 100 * right.combine(counts), top=100.0)
    for metric in (right, hundredfold):
        monkeypatch.setitem(catalog.METRICS, "exact_match", metric)
        new, old = _shares(0.9, 0.8 - fall), _shares(0.5, 0.8)
        found = _decided(tmp_path, data, "exact_match", new, old)
        assert found.promote is promoted, found.reason
