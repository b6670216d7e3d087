"""Tuning: better settings win, trials are tracked, a killed search reads what it had."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.core.artifacts import Dataset
from components.core.context import Tracking
from components.core.errors import DataError, ParamsError
from components.finetune import FinetuneParams
from components.tune import TuneParams, tune
from tests.components.test_finetune import base, parts  # noqa: F401 - fixtures

TUNE = TuneParams(trials=3, lr=(1e-6, 1e-2), rows=120, valid_rows=60, rungs=2)


def _events(spool: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in spool.glob("*.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_search_finds_tracks_and_does_not_repeat(
    base: Path,  # noqa: F811
    parts: tuple[Dataset, Dataset],  # noqa: F811
    make_context: Any,
    ray_head: None,
    tmp_path: Path,
) -> None:
    spool = tmp_path / "spool"
    params = FinetuneParams().override({"base": str(base), "batch_tokens": 256, "metric": "accuracy"})
    ctx = make_context("tune", tracking=Tracking(experiment="e", parent="p", spool=str(spool)))
    found = tune.fn(ctx, *parts, params, TUNE)
    table = json.loads((ctx.out / "trials.json").read_text())
    assert found.trials == len(table) == 3
    complete = [row for row in table if row["rung"] == 2]
    assert found.values == {"lr": max(complete, key=lambda row: row["score"])["lr"]}
    opened = [e for e in _events(spool) if e["event"] == "open"]
    assert {e["parent"] for e in opened} == {"p/tune"}
    assert len({e["id"] for e in opened}) == 3
    steps = sum("train/loss" in e.get("values", {}) for e in _events(spool))
    # The same step again, as after a kill: finished trials are read from their journals, not run.
    again = tune.fn(ctx, *parts, params, TUNE)
    assert again == found
    more = sum("train/loss" in e.get("values", {}) for e in _events(spool)) - steps
    assert more < steps / 2


def test_a_search_over_nothing_runs_nothing(make_context: Any, parts: tuple[Dataset, Dataset]) -> None:  # noqa: F811
    assert tune.fn(make_context("tune"), *parts, FinetuneParams(), TuneParams(trials=0)).values == {}


def test_mistakes_are_named(
    make_context: Any,
    parts: tuple[Dataset, Dataset],  # noqa: F811
    tmp_path: Path,
) -> None:
    with pytest.raises(ParamsError, match="the lower one first"):
        TUNE.override({"lr": "1e-2,1e-3"})
    with pytest.raises(DataError, match="is no folder"):
        tune.fn(make_context("tune"), *parts, FinetuneParams(base=str(tmp_path / "none")), TUNE)
