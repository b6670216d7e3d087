"""Tuning: better settings win, trials are tracked, a killed search goes on where it stood, bad trials are shown."""

import json
import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.artifacts import Dataset
from raypath.components.core.context import Context, NoTracker, Tracking
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.tune import Span, TuneParams, _trial_config, tune
from raypath.components.tuning.trial import _rows
from tests.forks import forks
from tests.tiny_decoders import decoder_folder, write_answers

Parts = tuple[Dataset, Dataset]
# One process for all trials of a search, whose start takes longer than they do; two in the test of a population.
TUNE = TuneParams(trials=3, lr=(1e-6, 1e-2), rows=120, valid_rows=60, rungs=2, concurrent=1)


class Files(NoTracker):
    """Keeps the names of files that a step hands to MLflow, and its figures."""

    def __init__(self) -> None:
        self.files: list[tuple[str, str]] = []
        self.figures: dict[str, float] = {}

    def artifact(self, path: Path, folder: str = "") -> None:
        self.files.append((folder, path.name))

    def metrics(self, values: Any, step: int = 0) -> None:
        self.figures |= values


def _params(base: Path, **changes: Any) -> ResolvedParams:
    plain = {"base": str(base), "batch_tokens": 256, "epochs": 2, "metric": "accuracy", "threads": 1}
    return ResolvedParams().override(plain | changes)


def _table(ctx: Context) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ctx.out / "trials.json").read_text())
    return found


def _events(ctx: Context) -> list[dict[str, Any]]:
    path = ctx.scratch / "search.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _spool(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_search_finds_tracks_and_does_not_repeat(
    base: Path, parts: Parts, make_context: Any, ray_head: None, tmp_path: Path
) -> None:
    spool, notes = tmp_path / "spool", Files()
    tracking = Tracking(experiment="e", parent="p", spool=str(spool))
    ctx = make_context("tune", tracking=tracking, track=notes)
    found = tune.fn(ctx, *parts, _params(base), TUNE)
    table = _table(ctx)
    assert found.trials == len(table["trials"]) == 3
    assert found.metric == table["metric"] == "log_loss"
    complete = [row for row in table["trials"] if row["status"] == "finished"]
    assert found.values == max(complete, key=lambda row: row["score"])["values"]
    assert found.training_fingerprint == "", "trials on some of the rows leave no weights"
    assert table["trials"][0]["values"] == {"lr": 1e-4}, "the settings as they are come first"
    assert table["compute_seconds"] == pytest.approx(sum(row["seconds"] for row in table["trials"]), abs=0.1)
    assert (ctx.out / "sweep.png").stat().st_size > 10_000
    assert notes.files == [("plots", "sweep.png")]
    opened = [e for e in _spool(spool) if e["event"] == "open"]
    assert {(e["parent"], e["name"]) for e in opened} == {("p/tune", f"trial-0{n}") for n in range(3)}
    steps = sum("train/loss" in e.get("values", {}) for e in _spool(spool))
    # The same step again, as after a kill at its end: nothing is run.
    for path in ctx.out.iterdir():
        path.unlink()
    assert tune.fn(ctx, *parts, _params(base), TUNE) == found
    assert sum("train/loss" in e.get("values", {}) for e in _spool(spool)) == steps


@pytest.mark.slow
def test_a_trial_leaves_no_model_in_the_process_that_the_next_one_runs_in(
    base: Path, parts: Parts, make_context: Any, ray_head: None, tmp_path: Path
) -> None:
    own = tmp_path / "base"
    shutil.copytree(base, own)
    params = _params(own, task="tests.components.counting:Counting", epochs=1)
    tune.fn(make_context("tune"), *parts, params, TUNE.override({"trials": 4, "scheduler": "asha"}))
    held = (own / "held.txt").read_text().split()
    assert len(held) >= 4
    assert set(held) == {"1"}, "each is alone"


def _tune(address: str, ctx: Context, parts: Parts, params: ResolvedParams, search: TuneParams) -> None:
    """What a killed process was."""
    import ray

    ray.init(address=address, log_to_driver=False)
    tune.fn(ctx, *parts, params, search)


@pytest.mark.slow
def test_killed_it_goes_on_where_it_stood(base: Path, parts: Parts, make_context: Any, ray_head: None) -> None:
    """Killed twice in the middle of a trial, it proposes, scores and stops as one that was left in peace."""
    import ray

    search = TUNE.override({"trials": 6, "rungs": 3, "space": {"head_factor": [1.0, 10.0]}})
    quiet, killed = make_context("tune"), make_context("tune")
    found = tune.fn(quiet, *parts, _params(base), search)
    address = ray.get_runtime_context().gcs_address
    survivors = sorted({e["trial"] for e in _events(quiet) if e.get("rung") == 2} - {0})
    for trial in sorted({survivors[0], survivors[-1]}):
        process = forks().Process(target=_tune, args=(address, killed, parts, _params(base), search))
        process.start()
        rung = killed.scratch / f"trial-{trial:02d}" / "last"
        while process.is_alive() and not list(rung.glob("step-*")):
            time.sleep(0.005)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert {e["trial"] for e in _events(killed) if e["event"] == "ended"} == set(range(trial))
    assert tune.fn(killed, *parts, _params(base), search).model_dump() == found.model_dump()
    keys = ("event", "trial", "values", "rung", "score", "status")
    one, other = ([{k: e[k] for k in keys if k in e} for e in _events(ctx)] for ctx in (quiet, killed))
    assert one == other, "no trial was run again, none from its start"


@pytest.mark.slow
def test_the_best_trial_is_not_trained_again(
    base: Path, parts: Parts, make_context: Any, ray_head: None, settle: Any
) -> None:
    search = TUNE.override({"rows": 0, "valid_rows": 0, "epochs": 0, "trials": 3, "search": "grid"})
    ctx = make_context("tune")
    best = settle(ctx, tune.fn(ctx, *parts, _params(base), search))
    assert best.training_fingerprint
    notes = Files()
    taken, fresh = make_context("finetune", track=notes), make_context("finetune")
    made = finetune.fn(taken, *parts, best, _params(base))
    assert notes.figures["reused"] == 1.0
    assert "train/loss" not in notes.figures
    assert made == finetune.fn(fresh, *parts, best.model_copy(update={"training_fingerprint": ""}), _params(base))
    for path in fresh.out.iterdir():
        assert path.read_bytes() == (taken.out / path.name).read_bytes(), path.name
    assert [len(list((ctx.scratch / f"trial-0{n}").glob("kept"))) for n in range(3)].count(1) == 1


@pytest.mark.slow
def test_a_population_clones_its_best(base: Path, parts: Parts, make_context: Any, ray_head: None) -> None:
    """Learning rates of 1e-7 learn nothing: such trials become clones of those that learn, and learn from there."""
    ctx = make_context("tune")
    search = TUNE.override(
        {"space": {"lr": [1e-7, 3e-3], "clip": {"low": 0.5, "high": 2}}, "scheduler": "pbt", "search": "grid"}
    )
    found = tune.fn(
        ctx,
        *parts,
        _params(base),
        search.override({"points": 2, "trials": 4, "rungs": 4, "epochs": 4, "concurrent": 2}),
    )
    clones = [event for event in _events(ctx) if event.get("clone")]
    assert clones
    for event in clones:
        before = [e for e in _events(ctx) if e["event"] == "rung" and e["trial"] == event["trial"]]
        assert event["score"] > before[0]["score"], "it has the weights of a better one"
        assert event["clone"] != f"trial-{event['trial']:02d}"
    table = _table(ctx)
    assert {row["status"] for row in table["trials"]} == {"finished"}
    assert sum(len(row["clones"]) for row in table["trials"]) == len(clones)
    assert all(0.5 <= row["values"]["clip"] <= 2 for row in table["trials"])
    assert found.training_fingerprint == ""


@pytest.mark.slow
def test_a_trial_that_fails_is_shown(
    base: Path, parts: Parts, make_context: Any, ray_head: None, caplog: pytest.LogCaptureFixture
) -> None:
    search = TUNE.override({"lr": (1e-4, 1e-4), "search": "grid", "trials": 2, "space": {"frozen_layers": [9, 1]}})
    ctx = make_context("tune")
    found = tune.fn(ctx, *parts, _params(base), search)
    assert found.values == {"frozen_layers": 1}
    assert [row["status"] for row in _table(ctx)["trials"]] == ["failed", "finished"]
    assert "has 2 layers" in _table(ctx)["trials"][0]["error"]
    ctx = make_context("tune")
    with caplog.at_level(logging.WARNING, "raypath"), pytest.raises(ParamsError, match="there is no metric log_los"):
        tune.fn(
            ctx, *parts, _params(base), search.override({"metric": "log_los", "space": {"frozen_layers": [0, 1, 2]}})
        )
    assert "the grid has 3 settings, of which tune.trials=2 are tried" in caplog.text
    assert not (ctx.scratch / "search.jsonl").exists(), "the next attempt begins anew"


@pytest.mark.slow
def test_a_time_budget_ends_the_search(
    base: Path, parts: Parts, make_context: Any, ray_head: None, caplog: pytest.LogCaptureFixture
) -> None:
    ctx = make_context("tune")
    with caplog.at_level(logging.WARNING, "raypath"):
        found = tune.fn(ctx, *parts, _params(base), TUNE.override({"trials": 500, "seconds": 5.0}))
    assert "tune.seconds=5 ended the search" in caplog.text
    assert 0 < found.trials < 500
    runs = [path.read_text().splitlines() for path in Path(ctx.tracking.spool).glob("*.jsonl")]
    ends = [[json.loads(line)["event"] for line in run if '"open"' in line or '"close"' in line][-1] for run in runs]
    assert ends == ["close"] * found.trials, "the runs of trials under way are ended"


def test_a_search_over_nothing_runs_nothing(make_context: Any, parts: Parts) -> None:
    assert tune.fn(make_context("tune"), *parts, ResolvedParams(), TuneParams(trials=0)).values == {}
    fixed = TuneParams(lr=(1e-4, 1e-4))
    assert tune.fn(make_context("tune"), *parts, ResolvedParams(), fixed).values == {}


def test_trials_are_told_with_how_many_they_share_the_memory(base: Path, parts: Parts, make_context: Any) -> None:
    def beside(gpus: int = 0, **changes: Any) -> int:
        ctx = make_context("tune", gpus=gpus)
        return _trial_config(
            ctx, parts, _params(base), TUNE.override({"concurrent": 0} | changes), None, 0.0
        ).concurrent_trials

    assert beside() == 2, "one a core"
    assert beside(concurrent=1) == 1
    assert beside(gpus=2, concurrent=3) == 2, "of three on two GPUs"


def test_weights_are_kept_of_whole_fine_tunings_alone(base: Path, parts: Parts, make_context: Any) -> None:
    def kept(search: dict[str, Any], **changes: Any) -> bool:
        whole = TuneParams(rows=0, valid_rows=0, epochs=0, trials=3).override(search)
        return _trial_config(make_context("tune"), parts, _params(base, **changes), whole, None, 0.0).keep

    assert kept({})
    assert kept({"rows": 200, "valid_rows": 60, "epochs": 2}), "as many as there are"
    for search in ({"rows": 199}, {"valid_rows": 59}, {"epochs": 1}, {"scheduler": "pbt"}):
        assert not kept(search), search
    assert not kept({}, workers=2)
    assert not kept({}, max_workers=2)
    assert kept({"concurrent": 2})
    assert not kept({"concurrent": 2}, threads=0), "finetune would have two threads"


def test_trials_have_the_same_rows_by_seed(parts: Parts) -> None:
    def rows(count: int, seed: int) -> list[tuple[int, ...]]:
        found = _rows(parts[0].uri, 2, count, seed)
        return [tuple(ids) for ids in np.split(found.ids, found.offsets[1:-1])]

    everything = rows(0, 0)
    assert len(everything) == 200
    assert rows(200, 1) == everything
    some = rows(50, 1)
    _rows.cache_clear()
    assert some == rows(50, 1) != rows(50, 2)
    assert len(some) == 50
    left = iter(everything)
    assert all(row in left for row in some), "in the order they had"


def test_mistakes_are_named(make_context: Any, parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="the lower one first"):
        TUNE.override({"lr": "1e-2,1e-3"})
    with pytest.raises(ParamsError, match=r"tune\.space: unknown setting head_facto; did you mean head_factor"):
        TuneParams(space={"head_facto": [1.0]})
    with pytest.raises(ParamsError, match=r"tune\.space: setting lr got 2\.0"):
        TUNE.override({"space": '{"lr": [1e-4, 2.0]}'})
    with pytest.raises(ParamsError, match=r"tune\.space\.workers cannot be searched"):
        TuneParams(space={"workers": [1, 2]})
    with pytest.raises(ParamsError, match=r"set -s tune\.epochs=0"):
        TuneParams(space={"epochs": [1, 2]})
    with pytest.raises(ParamsError, match="frozen_layers cannot change in the middle of a training"):
        TuneParams(space={"frozen_layers": [0, 2]}, scheduler="pbt")
    with pytest.raises(ParamsError, match="the lower number first"):
        TUNE.override({"space": {"head_factor": {"low": 3, "high": 1}}})
    assert TuneParams(space={"head_factor": Span(low=1, high=30)}).searched()[1].high == 30
    with pytest.raises(DataError, match="is not a folder"):
        tune.fn(make_context("tune"), *parts, ResolvedParams(base=str(tmp_path / "none")), TUNE)


@pytest.mark.slow
def test_ranks_of_adapters_and_rates_of_a_decoder_are_searched(
    tmp_path: Path, make_context: Any, ray_head: None
) -> None:
    pytest.importorskip("peft", reason="extra lora is not installed")
    base = decoder_folder(tmp_path / "base")
    splits = write_answers(tmp_path / "train", base, 120, 0), write_answers(tmp_path / "valid", base, 30, 1)
    params = _params(base, task="text_generation", metric="loss", frozen_layers=-1, lora=2)
    search = TUNE.override({"space": {"lora": [2, 4]}, "lr": (1e-3, 1e-2), "trials": 2, "rows": 60, "valid_rows": 20})
    ctx = make_context("tune")
    found = tune.fn(ctx, *splits, params, search)
    assert found.values["lora"] in (2, 4)
    assert found.score < 0, "a lower loss is better"
    assert {row["status"] for row in _table(ctx)["trials"]} == {"finished"}
