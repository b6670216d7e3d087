"""Progress, log lines, and what MLflow gets, of steps that need neither Ray nor an MLflow server."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypath.components import Context, Dataset, Model, Settings
from raypath.components.core.artifacts import Release
from raypath.components.core.errors import DataError
from raypath.components.data.streaming import progress
from raypath.components.data.streaming.progress import ProgressReporter
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.models.metadata import ModelMetadata
from raypath.components.predict import PredictParams, predict
from raypath.components.serve import _endpoint
from raypath.components.serving.params import ServeParams
from raypath.components.tasks.catalog import load_task
from raypath.components.training.reports import TrainingReports
from raypath.components.tune import _best_trial, _first, _progress_callback, _trial_config
from raypath.components.tuning.journal import TrialJournal
from raypath.components.tuning.params import TuneParams
from tests.components.recording import Recorder
from tests.tiny_classifier import tiny_classifier, tiny_dataset

Make = Callable[..., Context]
Reports = list[tuple[float, float, str]]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    """What is reported as progress: (done, total, message)."""
    found: Reports = []
    monkeypatch.setattr(Context, "report", lambda _, done, total, message="": found.append((done, total, message)))
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_classifier(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data") / "test", model, rows=12)


def test_evaluate(model: Model, data: Dataset, make_context: Make, reports: Reports) -> None:
    notes = Recorder()
    report = evaluate.fn(make_context("evaluate", track=notes), model, data, EvaluateParams(resamples=10))
    assert notes.datasets == [("test", data.digest, data.source, "test", 12)]
    assert notes.points == {name: {0: value} for name, value in report.metrics.items()}
    plots = ["confusion.png", "f1_per_class.png", "reliability.png"]
    pages = [("evaluation", name) for name in ("report.html", "report.json")]
    assert sorted(notes.files) == [*pages, *(("plots", name) for name in plots)]
    assert reports[0][1:] == (12, "rows scored")
    assert reports[-3:] == [(12, 12, message) for message in ("rows scored", "drawing", "writing the report")]


def test_predict(model: Model, data: Dataset, make_context: Make, reports: Reports) -> None:
    notes = Recorder()
    found = predict.fn(make_context("predict", track=notes), data, PredictParams(model=model.uri))
    assert (found.rows, found.labels, found.source) == (12, model.labels, data.source)
    assert reports[0] == (0, 12, "loading the model")
    assert reports[1][:2] == (12, 12)
    assert reports[1][2].startswith("12 rows, ")
    assert reports[2:] == [(12, 12, "writing")]
    assert notes.points.keys() == {"rows", "rows_computed", "rows_per_second", "start_seconds"}
    assert (notes.points["rows"], notes.points["rows_computed"]) == ({0: 12.0}, {0: 12.0})


def test_finetune(base: Path, parts: tuple[Dataset, Dataset], make_context: Make, reports: Reports) -> None:
    notes = Recorder()
    settings = {"base": str(base), "epochs": 1, "batch_tokens": 256, "metric": "accuracy", "threads": 1}
    best = Settings(values={"lr": 2e-3}, metric="log_loss", score=-0.5, trials=3)
    ctx = make_context("finetune", track=notes)
    model = finetune.fn(ctx, *parts, best, ResolvedParams().override(settings))
    assert notes.datasets == [
        (part.source, part.digest, part.source, name, part.rows)
        for name, part in zip(("train", "valid"), parts, strict=True)
    ]
    assert notes.settings["used.lr"] == 2e-3
    assert notes.settings["run.precision"] == "fp32"
    steps = [done for done, total, _ in reports]
    assert steps == list(range(1, len(steps) + 1)) == list(notes.points["train/loss"])
    assert {total for _, total, _ in reports} == {len(steps)}
    rate = notes.points["train/rows_per_second"][1]
    assert reports[0][2] == f"loss {notes.points['train/loss'][1]:.3f}, {rate:,.0f} rows/s"
    assert notes.points["valid/accuracy"][len(steps)] == pytest.approx(model.metrics["accuracy"])
    assert notes.points["memory/peak_rss_mib"][0] > 0


def test_points_of_long_trainings_are_thinned_and_those_of_classes_left_out(make_context: Make) -> None:
    notes = Recorder()
    task = load_task(ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8))
    reports = TrainingReports(make_context("finetune", track=notes), task, ResolvedParams(metric="accuracy"))
    for step in range(1, 10):
        reports.on_step(step, 1_999, {"loss": 1.0, "rows_per_second": 2.0})
    assert list(notes.points["train/loss"]) == [3, 6, 9]
    reports.on_step(1, 499, {"loss": 1.0, "rows_per_second": 2.0})
    assert 1 in notes.points["train/loss"], "fewer than 500 steps have a point each"
    reports.on_evaluation(7, {"accuracy": 0.5, "f1/bad": 0.25})
    assert notes.points["valid/accuracy"] == {7: 0.5}
    assert "valid/f1/bad" not in notes.points


@pytest.mark.parametrize(("short", "message"), [(0, "the train split has no rows"), (1, "the valid split has no rows")])
def test_a_split_without_rows(
    base: Path, parts: tuple[Dataset, Dataset], make_context: Make, short: int, message: str
) -> None:
    splits = [part.model_copy(update={"rows": 0}) if n == short else part for n, part in enumerate(parts)]
    with pytest.raises(DataError, match=message) as caught:
        finetune.fn(make_context("finetune"), *splits, None, ResolvedParams(base=str(base)))
    assert caught.value.fix == f"raise split.{('train', 'valid')[short]}, or give it"


def _search(folder: Path, trials: int, rungs: int = 2) -> TrialJournal:
    journal = TrialJournal(folder / "search.jsonl", rungs)
    for trial in range(trials):
        journal.propose(trial, {"lr": 1e-4})
    return journal


def _reach(journal: TrialJournal, trial: int, rung: int, score: float) -> None:
    facts = {"metric": "log_loss", "metrics": {"log_loss": -score}, "seconds": 1.25, "clone": ""}
    journal.reach(trial, rung=rung, score=score, value=-score, values=journal.entries[trial].values, **facts)


def test_a_search_reports_trials_and_keeps_the_files_of_those_that_run(make_context: Make, reports: Reports) -> None:
    ctx = make_context("tune")
    journal = _search(ctx.scratch, 3)
    on_change = _progress_callback(ctx, journal, 4)
    on_change()
    for trial in range(3):
        for name in ("last", "best", "rung", "kept"):
            (ctx.scratch / f"trial-{trial:02d}" / name).mkdir(parents=True)
    _reach(journal, 0, 1, -0.5)
    on_change()
    assert len(list(ctx.scratch.glob("trial-*/*"))) == 12, "all of them run"
    for trial, score in ((0, -0.5), (1, -0.25)):
        _reach(journal, trial, 2, score)
        journal.end(trial)
    on_change()
    assert reports == [
        (0.0, 4, "0 of 4 trials"),
        (0.5, 4, "0 of 4 trials, best log_loss 0.500"),
        (2.0, 4, "2 of 4 trials, best log_loss 0.250"),
    ]
    left = sorted(str(path.relative_to(ctx.scratch)) for path in ctx.scratch.glob("trial-*/*"))
    assert left == ["trial-01/kept", *(f"trial-02/{name}" for name in ("best", "kept", "last", "rung"))]


def test_the_result_of_a_search(
    base: Path,
    parts: tuple[Dataset, Dataset],
    make_context: Make,
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
) -> None:
    notes, finetuning = Recorder(), ResolvedParams(base=str(base), threads=1)
    ctx, params = make_context("tune", track=notes), TuneParams(rows=0, valid_rows=0, epochs=0, trials=4, seconds=9.0)

    def best(deadline: float) -> Any:
        config = _trial_config(ctx, parts, finetuning, params, None, deadline)
        return _best_trial(ctx, journal, 4, params, config)

    journal = _search(ctx.scratch, 2)
    assert best(time.time() + 60) is None
    assert (caplog.messages, reports, notes.points) == ([], [], {})
    _reach(journal, 0, 2, -0.5)
    _reach(journal, 1, 1, -0.125)
    journal.end(0)
    (ctx.scratch / "trial-00" / "kept").mkdir(parents=True)
    (ctx.scratch / "trial-00" / "kept" / "weights").write_text("w")
    with caplog.at_level(logging.WARNING, "raypath"):
        assert best(time.time() - 1) is journal.entries[0]
    assert caplog.messages == ["tune.seconds=9 ended the search: 1 of 4 trials finished"]
    assert reports == [(4, 4, "out of time, 1 of 4 trials finished")]
    assert notes.points == {"best/log_loss": {0: 0.5}, "compute_seconds": {0: 2.5}}
    assert notes.files == [("plots", "sweep.png")]
    written = json.loads((ctx.out / "trials.json").read_text())
    assert {name: written[name] for name in written if name != "trials"} == {
        "metric": "log_loss",
        "search": params.search,
        "scheduler": params.scheduler,
        "best": 0,
        "compute_seconds": 2.5,
    }
    assert [path.read_text() for path in ctx.out.glob("*/weights")] == ["w"], "finetune takes them"


def test_a_search_that_failed_begins_anew(base: Path, parts: tuple[Dataset, Dataset], make_context: Make) -> None:
    ctx, params = make_context("tune"), TuneParams(trials=2)
    journal = _search(ctx.scratch, 2)
    journal.end(0, DataError("first", fix=""))
    journal.end(1, DataError("second", fix=""))
    config = _trial_config(ctx, parts, ResolvedParams(base=str(base)), params, None, time.time() + 60)
    with pytest.raises(DataError, match="first"):
        _best_trial(ctx, journal, 2, params, config)
    assert not journal.path.exists()


def test_a_grid_that_is_larger_than_the_trials_is_said(make_context: Make, caplog: pytest.LogCaptureFixture) -> None:
    def first(**changes: Any) -> tuple[int, int]:
        params = TuneParams(search="grid", points=3, lr=(1e-5, 1e-3), **changes)
        chosen, trials = _first(make_context("tune"), params.searched(), ResolvedParams(), params)
        return len(chosen), trials

    assert first(trials=3) == (3, 3)
    assert not caplog.messages
    assert first(trials=2) == (2, 2)
    assert caplog.messages == ["the grid has 3 settings, of which tune.trials=2 are tried"]


@pytest.mark.parametrize("replicas", [0, 1])
def test_serve(make_context: Make, replicas: int) -> None:
    notes = Recorder()
    ctx = make_context("serve", track=notes)
    release = Release(name="shop", version=3, alias="challenger", reason="worse", serving=2)
    figures = {"ready_seconds": 1.5, "request_ms": 2.5}
    made = _endpoint(ctx, release, ServeParams(replicas=replicas), "http://127.0.0.1:8000", figures, example="{}")
    assert notes.points == {"ready_seconds": {0: 1.5}, "request_ms": {0: 2.5}}
    assert (made.version, made.scales_to_zero, made.example, made.metrics) == (2, replicas == 0, "{}", figures)
    written = json.loads((ctx.out / "endpoint.json").read_text())
    assert written == {"url": "http://127.0.0.1:8000", "name": "shop", "version": 2}


def test_rows_are_reported_once_a_second_and_at_the_end(
    make_context: Make, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 100.0, 100.5, 101.0, 101.0, 101.9])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    reporter = ProgressReporter(make_context("read"), total=5_000)
    for rows in (1_000, 500, 500, 1):
        reporter.add(rows)
    assert reports == [(1_000, 5_000, "1,000 rows"), (2_000, 5_000, "2,000 rows")]
    reporter.finish()
    assert reports[2:] == [(2_001, 2_001, "2,001 rows")]
