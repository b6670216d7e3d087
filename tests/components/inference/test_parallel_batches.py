"""Sub-batches of one thread each: the outputs are the same to the last bit, however many are computed at a time."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raypath.components.inference.backends.loader import budget_of
from raypath.components.inference.engine import Engine
from raypath.components.predict import PredictParams, predict
from tests.tiny_classifier import tiny_classifier, tiny_dataset

TOKENS = [[2, *range(5, 5 + n % 25), 3] for n in range(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_classifier(tmp_path_factory.mktemp("parallel") / "model").uri)


@pytest.mark.parametrize("parallel", [1, 2, 5])
def test_a_forward_pass_has_one_thread(folder: Path, parallel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen: set[tuple[str, int]] = set()
    meet = threading.Barrier(min(parallel, 2), timeout=60)
    calls = itertools.count()
    try:
        torch.set_num_threads(3)
        engine = Engine(folder, budget=200, precision="fp32", parallel=parallel)
        wanted = Engine(folder, threads=1, budget=200, precision="fp32").record(TOKENS)
        forward = engine.task.forward

        def observed(model: Any, batch: Any) -> Any:
            seen.add((threading.current_thread().name, torch.get_num_threads()))
            if next(calls) < meet.parties:  # the first sub-batches are computed at the same time
                meet.wait()
            return forward(model, batch)

        monkeypatch.setattr(engine.task, "forward", observed)
        assert np.array_equal(engine.record(TOKENS), wanted)
    finally:
        torch.set_num_threads(before)
    assert {threads for _, threads in seen} == {1}
    assert min(parallel, 2) <= len(seen) <= parallel


def test_tokens_of_a_forward_pass_are_those_of_the_precision_or_as_given(folder: Path) -> None:
    assert Engine(folder, precision="fp32", device="cpu").budget == budget_of("fp32", "cpu")
    assert Engine(folder, precision="fp32", device="cpu", budget=77).budget == 77


def test_an_error_in_a_sub_batch_is_raised(folder: Path) -> None:
    engine = Engine(folder, budget=200, precision="fp32", parallel=2)
    with pytest.raises(IndexError):
        engine.record([*TOKENS, [10**6]])


def test_predictions_have_the_same_bytes_for_any_number_of_cores(folder: Path, tmp_path: Path, make_context) -> None:
    data = tiny_dataset(tmp_path / "data", tiny_classifier(tmp_path / "model"), rows=300)
    made = []
    for workers in (1, 3):
        ctx = dataclasses.replace(make_context("predict"), workers=workers)
        predict.fn(ctx, data, PredictParams(model=str(folder), scores=True, batch=128))
        made.append((ctx.out / "predictions-00000.parquet").read_bytes())
        assert pq.read_table(ctx.out).num_rows == 300
    assert made[0] == made[1]
