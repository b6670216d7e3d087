"""Warnings and reports of a training, the size of its group, and memory that does not suffice."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raypath.components import Context
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training import ray_train
from raypath.components.training.few_shot import training
from raypath.components.training.outlook import Outlook
from raypath.components.training.params import ResolvedParams
from raypath.components.training.reports import TrainingReports
from raypath.components.training.runtime import memory
from raypath.components.training.runtime.training_request import TrainingRequest
from tests.raised import raised


def test_classes_with_a_single_row_are_named(caplog: pytest.LogCaptureFixture) -> None:
    text = "contrastive learning has no pair of it, and it is never held out; give at least two rows a class"

    def warn(*targets: int) -> str:
        caplog.clear()
        labels = tuple("abcdefgh")
        metadata = ModelMetadata(task="text_classification", labels=labels, max_length=8)
        log = logging.getLogger("raypath.test")
        job: Any = SimpleNamespace(train=SimpleNamespace(targets=np.array(targets)), task=load_task(metadata), log=log)
        training._warn_of_single_rows(job)
        return "".join(caplog.messages)

    assert warn(0, 0, 2, 2) == ""
    assert warn(0, 0, 1) == f"1 class with a single row in train (b): {text}"
    assert warn(0, 1, 2, 3, 4) == f"5 classes with a single row in train (a, b, c, d, e): {text}"
    assert warn(*range(7)) == f"7 classes with a single row in train (a, b, c, d, e and 2 others): {text}"


@pytest.mark.parametrize(
    ("scores", "step", "text"),
    [
        ([0.5], 10, ""),
        ([0.5, 0.6], 8, "more epochs would not help: the score stopped rising after 2 validation passes"),
        ([0.5, 0.6], 10, "more epochs may help: the score still rose in the last one; try -s finetune.epochs=6"),
        ([0.5, 0.5009], 10, "more epochs would hardly help: the score did not rise in the last one"),
        ([0.5, 0.5011], 10, "more epochs may help: the score still rose in the last one; try -s finetune.epochs=6"),
        ([0.7, 0.5, 0.6], 10, "more epochs would hardly help: the score did not rise in the last one"),
        ([-0.7, -0.6], 10, "more epochs may help: the score still rose in the last one; try -s finetune.epochs=6"),
    ],
)
def test_whether_more_passes_would_help(
    scores: list[float], step: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    outlook = Outlook(ResolvedParams(epochs=4), seconds=20.0)
    outlook.started -= 5.0
    for number, score in enumerate(scores):
        outlook.evaluated(number, score)
    assert outlook.more_passes(step, 10) == text
    with caplog.at_level(logging.INFO, "raypath"):
        found = outlook.report(step, 10, logging.getLogger("raypath"))
    said = f"fine-tuning took 5 s; the estimate for its {step} steps was {2 * step} s"
    assert caplog.messages == [said, *([text] if text else [])]
    assert found == pytest.approx(
        {
            "training/seconds": 5.0,
            "training/estimated_seconds": 2 * step,
            "training/estimate_error": 5 / (2 * step) - 1,
        },
        abs=0.5,
    )


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ([2.8, 2.0, 1.0, 0.5], ""),
        ([0.69, 0.71, 0.68, 0.7], ""),
        ([2.8, 29.0, 30.0], ""),
        (
            [*([2.8] * 2), *([40.0] * 16), *([29.0] * 2)],
            "training diverged: its loss rose from 2.8 to 29; lower finetune.lr (1), such as -s finetune.lr=0.1",
        ),
        ([2.8, 29.0, 3.0, 2.7], ""),
        ([0.0, 0.0, 0.0, 0.0], ""),
    ],
)
def test_a_loss_that_rises_is_a_warning(losses: list[float], text: str, caplog: pytest.LogCaptureFixture) -> None:
    outlook = Outlook(ResolvedParams(epochs=1, lr=1.0))
    for loss in losses:
        outlook.trained(loss)
    outlook.evaluated(1, -2.0)
    outlook.evaluated(2, -1.0)
    with caplog.at_level(logging.INFO, "raypath"):
        outlook.report(3, 3, logging.getLogger("raypath"))
    levels = [record.levelno for record in caplog.records]
    assert (caplog.messages, levels) == ([text], [logging.WARNING]) if text else (levels == [logging.INFO])


def test_without_an_estimate_the_time_alone_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    outlook = Outlook(ResolvedParams(epochs=1))
    for score in (0.1, 0.2):
        outlook.evaluated(1, score)
    assert outlook.more_passes(3, 3).endswith("try -s finetune.epochs=2")
    with caplog.at_level(logging.INFO, "raypath"):
        assert list(outlook.report(3, 3, logging.getLogger("raypath"))) == ["training/seconds"]
        assert list(Outlook(ResolvedParams(), 5.0).report(0, 3, logging.getLogger("raypath"))) == ["training/seconds"]
    assert len(caplog.messages) == 1


def test_more_workers_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
        return {"NodeID": name, "Alive": alive, "Resources": resources}

    there = [node("a", CPU=2.0, GPU=1.0), node("b", CPU=1.0), node("c", alive=False, CPU=8.0)]
    monkeypatch.setattr(ray, "nodes", lambda: there)

    def check(workers: int, kind: str, where: str) -> None:
        ray_train._check_workers(workers, kind, where)

    check(3, "CPU", "")
    check(2, "CPU", "a")
    check(1, "GPU", "")
    what = "ParamsError: finetune.workers="
    assert raised(lambda: check(4, "CPU", "")) == f"{what}4, but Ray has 3 CPUs; set at most 3"
    text = f"{what}2, but one node has 1 CPUs; set at most 1, or let all nodes share RAYPATH_HOME"
    assert raised(lambda: check(2, "CPU", "b")) == text
    assert raised(lambda: check(2, "GPU", "")) == f"{what}2, but Ray has 1 GPUs; set at most 1"


@pytest.mark.parametrize(("workers", "most", "wanted"), [(1, 0, 1), (2, 0, 2), (2, 2, 2), (1, 3, (1, 3)), (3, 2, 3)])
def test_the_size_of_a_group(workers: int, most: int, wanted: Any) -> None:
    params = ResolvedParams(workers=workers, max_workers=most)
    assert ray_train._workers(params) == wanted
    assert ray_train.most_workers(params) == max(workers, most)


def test_groups_of_workers_that_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from ray.train.v2.api.exceptions import TrainingFailedError

    from raypath.components.core.errors import DataError

    monkeypatch.setattr(ray_train, "_check_workers", lambda *given: asked.append(given))
    asked: list[Any] = []
    failures: list[BaseException] = []

    class Trainer:
        def fit(self) -> None:
            if failures:
                raise failures.pop(0)

    monkeypatch.setattr(ray_train, "_trainer", lambda _: Trainer())
    (tmp_path / "metrics.json").write_text('{"f1": 0.5}')
    ctx = Context("finetune", tmp_path, tmp_path, node="n")
    metadata = ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8)
    base, params = tmp_path / "base", ResolvedParams(workers=2)
    request = TrainingRequest(ctx, base, "train", "valid", 2, metadata, params, None)

    def died(**causes: BaseException) -> BaseException:
        made = TrainingFailedError.__new__(TrainingFailedError)
        Exception.__init__(made, "a worker died\nof something")
        made.worker_failures = dict(enumerate(causes.values()))
        return made

    failures += [died(), died(), died()]
    assert ray_train._train_group(request) == {"f1": 0.5}
    assert asked == [(2, "CPU", "n")]
    assert caplog.messages == ["training workers failed, a new group resumes: a worker died"] * 3
    failures += [died() for _ in range(4)]
    text = "Unavailable: training workers failed: a worker died; see the Ray logs"
    assert raised(lambda: ray_train._train_group(request)) == text
    failures[:] = [died(first=ValueError("x"), second=DataError("no rows", fix="give some"))]
    assert raised(lambda: ray_train._train_group(request)) == "DataError: no rows; give some"
    assert ray_train._cause(died(first=ValueError("x"))) is None


def test_memory_that_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    needs = {(1024, False, 0): 8, (512, False, 0): 6, (1024, True, 0): 5, (512, True, 0): 4, (1024, True, 8): 3}
    monkeypatch.setattr(
        memory, "estimate", lambda _, plan, *__: gib * needs.get((plan.micro_tokens, plan.checkpointing, plan.lora), 2)
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(memory, "find_spec", lambda _: installed)
    installed: Any = "there"

    def plan(free: float, size: int = 1, trials: int = 1, **settings: Any) -> Any:
        monkeypatch.setattr(memory, "free_bytes", lambda: free * gib / memory.SPARE * size * trials)
        params = ResolvedParams(batch_tokens=1024, **settings)
        return memory.plan_memory(None, params, 64, False, size, trials)

    said = "8.0 GiB are needed and {} are available: {}"
    for free, wanted, text in [
        (8.0, (1024, False, 0), ""),
        (7.0, (512, False, 0), said.format("7.0", "512 tokens per micro-batch")),
        (5.0, (1024, True, 0), said.format("5.0", "activation checkpointing")),
        (4.5, (512, True, 0), said.format("4.5", "512 tokens per micro-batch, activation checkpointing")),
        (3.0, (1024, True, 8), said.format("3.0", "activation checkpointing, LoRA of rank 8")),
    ]:
        found = plan(free)
        assert (found.micro_tokens, found.checkpointing, found.lora) == wanted
        assert found.summary == text
        assert plan(free, size=2, trials=3) == found
    assert plan(1.0, memory="full") == memory.MemoryPlan(1024, False, 0)
    fix = "use a smaller base or a lower preprocess.max_length, or more workers with finetune.shard=true"
    text = "DataError: training needs {} GiB at least and {} are available; {}"
    assert raised(lambda: plan(1.0)) == text.format("2.0", "1.0", fix)
    installed = None
    more = f"pip install 'raypath[lora]', with which it fits; or {fix}"
    assert raised(lambda: plan(3.0)) == text.format("4.0", "3.0", more)


def test_features_are_computed_with_one_thread_by_each_of_several() -> None:
    from raypath.components.training.batches.frozen_features import Features

    found = Features(Path("base"), 4, "auto", separator=7).alone()
    assert (found.folder, found.threads, found.precision, found.separator) == (Path("base"), 1, "auto", 7)
    assert found.stored is None


@pytest.mark.parametrize(("precision", "chosen"), [("auto", "bf16"), ("fp32", "fp32")])
def test_features_of_any_node_have_the_precision_of_this_one(
    precision: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypath.components.models import bf16
    from raypath.components.training.batches import frozen_features

    monkeypatch.setattr(bf16, "uses_bf16", lambda precision: precision == "auto")
    monkeypatch.setattr(frozen_features.StoredFolder, "of", lambda folder, storage, staging: (folder, storage))
    storage: Any = "bucket"
    found = frozen_features.Features(Path("base"), 4, precision).stored_in(storage, Path("staging"))
    assert (found.precision, found.threads, found.stored) == (chosen, 4, (Path("base"), "bucket"))


def test_progress_of_a_step_and_of_a_validation_pass() -> None:
    from tests.components.recording import Recorder

    notes = Recorder()
    ctx = Context("finetune", Path(), Path(), track=notes)
    task = load_task(ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8))
    reports = TrainingReports(ctx, task, ResolvedParams(metric="macro_f1"))
    reports.on_step(2, 999, {"loss": 0.5, "rows_per_second": 3.0})
    reports.on_step(3, 1000, {"loss": 0.25, "rows_per_second": 3.0})
    reports.on_evaluation(4, {"macro_f1": 0.5, "macro_f1/a": 0.25})
    assert notes.points == {
        "train/loss": {2: 0.5},
        "train/rows_per_second": {2: 3.0},
        "valid/macro_f1": {4: 0.5},
    }
