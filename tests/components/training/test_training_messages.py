"""Errors, warnings and reports of training: each in full, with what to do."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Dataset
from raypath.components.core.columns import Column
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training import compatibility
from raypath.components.training.batches.targets import target_array
from raypath.components.training.batches.token_dataset import TokenDataset, load_token_dataset
from raypath.components.training.checkpoints import checkpoint, resume
from raypath.components.training.few_shot import choose_method, fitted_head
from raypath.components.training.loop import model_setup, nonfinite
from raypath.components.training.params import ResolvedParams
from tests.raised import raised
from tests.tiny import rows

PLACE = (1, 2, np.arange(9)[::-1])
SETS, NUMBERS = pa.list_(pa.int32()), pa.list_(pa.float32())


def _targets(values: list[Any], kind: pa.DataType) -> None:
    target_array("rows", pa.chunked_array([pa.array(values, kind)]), 2)


def _step(loss: float, norm: float) -> None:
    error = nonfinite.step_error(loss, norm, PLACE, None)
    assert error is not None
    raise error


def _load(folder: Path, table: pa.Table | None) -> None:
    if table is not None:
        pq.write_table(table, folder / "part-0.parquet")
    load_token_dataset(folder)


def _model(words: int = 100, positions: int = 8) -> Any:
    config = SimpleNamespace(vocab_size=words, model_type="bert", max_position_embeddings=positions)
    return SimpleNamespace(config=config)


def _rows(*ids: int, features: bool = False) -> TokenDataset:
    given = np.zeros((1, 4), np.float32) if features else None
    return TokenDataset(np.array(ids, np.int32), np.array([0, len(ids)]), np.zeros(1, np.int64), given)


def _check_rows(folder: Path, model: Any, found: TokenDataset) -> None:
    (folder / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 3}')
    model_setup.check_rows(model, folder, found, "valid")


def _check_method(kind: str = "string", **settings: Any) -> None:
    task = load_task(ModelMetadata(task="text_classification", labels=("a", "b"), label_kind=kind, max_length=8))
    compatibility.check_method(task, ResolvedParams().override({"method": "linear_probe", **settings}))


EMPTY = pa.table({"input_ids": pa.array([], SETS), "target": pa.array([], pa.int32())})
CASES: list[tuple[Callable[[Path], Any], str]] = [
    (
        lambda _: _targets([[0, 1], [2]], SETS),
        "DataError: rows has class number 2, but only 2 labels; run preprocess again",
    ),
    (
        lambda _: _targets([[0.5], [0.5, 1.0]], NUMBERS),
        "DataError: rows has rows with different numbers of targets; run read and preprocess again",
    ),
    (
        lambda _: _targets([[0.5], [math.nan], [math.inf]], NUMBERS),
        "DataError: rows has a NaN or infinite target in row 2; leave such rows out with -s read.nulls=drop",
    ),
    (
        lambda folder: _load(folder, None),
        "DataError: FOLDER has no Parquet file; give a dataset that `preprocess` made",
    ),
    (lambda folder: _load(folder, EMPTY), "DataError: FOLDER has no rows; give more data"),
    (
        lambda _: _step(math.nan, 1.0),
        "DataError: loss is NaN at epoch 2, step 3 (training rows 0, 1, 2, 3, 4, 5, 6, 7, ...); lower "
        "finetune.lr or inspect these rows; there is no checkpoint yet",
    ),
    (
        lambda _: _step(1.0, -math.inf),
        "DataError: gradient norm is infinite at epoch 2, step 3 (training rows 0, 1, 2, 3, 4, 5, 6, 7, "
        "...); lower finetune.lr or inspect these rows; there is no checkpoint yet",
    ),
    (
        lambda _: nonfinite.check_predictions(np.array([[1.0, 1.0], [math.nan, 1.0]]), 7, None),
        "DataError: outputs are NaN or infinite after step 7 (validation rows 1); lower finetune.lr or "
        "inspect these rows; there is no checkpoint yet",
    ),
    (
        lambda _: nonfinite.check_score("f1", math.inf, 7, None),
        "DataError: metric f1 is infinite after step 7; the best weights are selected by it; set "
        "another finetune.metric; there is no checkpoint yet",
    ),
    (
        lambda folder: _check_rows(folder, _model(), _rows(1, 2, 3, 4)),
        "DataError: a row of valid has 4 tokens; the model takes 3; set -s preprocess.max_length=3 or less",
    ),
    (
        lambda folder: _check_rows(folder, _model(words=3), _rows(1, 3)),
        "DataError: rows of valid have token 3, but the model's vocabulary has 3 tokens; leave "
        "preprocess.tokenizer unset, or give a base with its own tokenizer",
    ),
    (
        lambda folder: model_setup.check_valid(
            load_task(ModelMetadata(task="text_classification", labels=("a", "b"), max_length=8)),
            _model(),
            folder,
            _rows(1, 2, features=True),
            _rows(1, 2),
        ),
        "DataError: one of train and valid has features, the other not; run `extract` on both",
    ),
    (
        lambda _: _check_method("set"),
        "DataError: finetune.method=linear_probe is for one class a row; the task text_classification "
        "has labels of kind set; set finetune.method=full",
    ),
    (
        lambda _: _check_method(**{"objective.focal": 2.0}),
        "ParamsError: finetune.method=linear_probe fits a plain logistic regression; leave focal and "
        "label_smoothing out",
    ),
    (
        lambda _: _check_method(**{"objective.label_smoothing": 0.1}),
        "ParamsError: finetune.method=linear_probe fits a plain logistic regression; leave focal and "
        "label_smoothing out",
    ),
    (
        lambda _: _check_method(workers=2),
        "ParamsError: finetune.method=linear_probe trains with one worker; leave finetune.workers and shard out",
    ),
    (
        lambda _: _check_method(max_workers=2),
        "ParamsError: finetune.method=linear_probe trains with one worker; leave finetune.workers and shard out",
    ),
    (
        lambda _: _check_method(shard=True),
        "ParamsError: finetune.method=linear_probe trains with one worker; leave finetune.workers and shard out",
    ),
    (lambda _: choose_method.choose_method({}, None, Path(), rows(2), 0), "ValueError: no candidate"),  # type: ignore[arg-type]
    (
        lambda _: list(choose_method.split_folds(np.arange(3), 4, 0)),
        "DataError: no class has two rows, so that none can be held out; give at least two rows a class",
    ),
    (
        lambda _: fitted_head.linear_layer(np.ones((2, 3)), np.array([1, 1]), np.ones(2), 2, 1.0, False),
        "DataError: the train split has rows of one class only; give rows of at least two classes",
    ),
]


@pytest.mark.parametrize(("call", "text"), CASES)
def test_an_error_of_training(call: Callable[[Path], Any], text: str, tmp_path: Path) -> None:
    assert raised(lambda: call(tmp_path)).replace(str(tmp_path), "FOLDER") == text


@pytest.mark.parametrize(
    "settings",
    [{}, {"workers": 1, "max_workers": 1}, {"objective.class_weights": "balanced"}, {"method": "contrastive"}],
)
def test_settings_that_a_fitted_head_supports(settings: dict[str, Any]) -> None:
    _check_method(**settings)
    _check_method("set", **{**settings, "method": "full", "workers": 2, "objective.focal": 2.0})


def test_what_a_model_can_take(tmp_path: Path) -> None:
    _check_rows(tmp_path, _model(words=4), _rows(1, 2, 3))
    _check_rows(tmp_path, _model(words=4), _rows(0, 3))
    _check_rows(tmp_path, _model(words=0), _rows(9))
    _check_rows(tmp_path, _model(words=4), _rows())
    _check_rows(tmp_path, _model(words=4), _rows(9, features=True))
    assert nonfinite.step_error(1.0, 2.0, PLACE, None) is None
    nonfinite.check_predictions(np.ones((2, 2)), 1, None)
    nonfinite.check_score("f1", 0.5, 1, None)


def test_a_base_that_does_not_fit_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "base_folder", Path)
    monkeypatch.setattr(compatibility, "weights_digest", lambda folder: f"weights of {folder}")
    monkeypatch.setattr(compatibility, "tokenizer_digest", lambda folder: f"tokens of {folder}")
    start = SimpleNamespace(uri="further", base="tiny", task="language_model")

    def check(train: dict[str, Any], begin: Any = None, **settings: Any) -> str:
        data = Dataset(rows=1, **train)
        return raised(lambda: compatibility.check_base(ResolvedParams(base="base", **settings), data, begin))

    other = "the features of the rows were computed with another encoder than that of"
    fix = "use the same base for `extract` and finetune, or set finetune.method=full"
    assert check({}, method="head") == (
        "DataError: method=head needs rows with features; put the step `extract` before tune and finetune"
    )
    assert check({"features": "x"}, method="head") == f"DataError: {other} base; {fix}"
    assert check({"features": "x"}, start, method="head") == f"DataError: {other} tiny, trained further; {fix}"
    text = "DataError: the rows were tokenized with another tokenizer than that of"
    advice = "leave preprocess.tokenizer unset, or give the base model's"
    assert check({"tokenizer": "x"}) == f"{text} base; {advice}"
    assert check({"tokenizer": "x"}, start) == f"{text} tiny; {advice}"
    right = {"features": "weights of base", "tokenizer": "tokens of base"}
    for params in (ResolvedParams(base="base", method="head"), ResolvedParams(base="base")):
        assert compatibility.check_base(params, Dataset(rows=1, **right)) == Path("base")
    assert compatibility.check_base(ResolvedParams(), Dataset(rows=1), start) == Path("further")  # type: ignore[arg-type]


def test_the_metadata_of_a_model_to_be_trained() -> None:
    plain = Dataset(rows=1, labels=("a", "b"), label_kind="int", max_length=9)
    found = compatibility.metadata_for(ResolvedParams(base="base"), plain, Path())
    assert found == ModelMetadata(
        task="text_classification", labels=("a", "b"), label_kind="int", max_length=9, base="base"
    )
    start = SimpleNamespace(base="tiny", task="language_model")
    further = compatibility.metadata_for(ResolvedParams(), plain, Path(), start)  # type: ignore[arg-type]
    assert further.base == "tiny, then language_model"
    columns = tuple(Column(name=name, stored=f"input.{name}") for name in ("a", "b"))
    target = Column(name="c", role="target")
    several = Dataset(rows=1, columns=(*columns, target), form="fields")
    facts = {"columns": columns, "form": "fields", "separator": None, "redaction": None}
    assert compatibility.input_facts(several, Path()) == facts


def test_a_full_disk_leaves_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> Callable[..., None]:
        def write(*_: Any) -> None:
            raise OSError(number, "x")

        return write

    made = checkpoint.Snapshot({}, {}, [])
    monkeypatch.setattr(checkpoint, "save_file", fail(errno.ENOSPC))
    text = f"StoreError: no free space for a checkpoint in {tmp_path}; free some space, then run again"
    assert raised(lambda: checkpoint.save(tmp_path, 1, made, {})) == text
    monkeypatch.setattr(checkpoint, "save_file", fail(errno.EIO))
    with pytest.raises(OSError, match="x"):
        checkpoint.save(tmp_path, 1, made, {})
    assert not list(tmp_path.iterdir())


def test_a_corrupt_checkpoint_is_named_and_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("raypath.test")
    for name in ("step-00000002", "step-00000005"):
        (tmp_path / "last" / name).mkdir(parents=True)
    start = resume.ResumePoint(tmp_path / "last" / "step-00000002", None, {})
    resume.drop_newer(tmp_path, start, log)
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["step-00000002"]
    resume.drop_newer(tmp_path, None, log)
    resume.drop_newer(tmp_path, None, log)
    resume.drop_newer(None, None, log)
    assert not list((tmp_path / "last").iterdir())
    text = "a checkpoint, or its best weights, is corrupt: training resumes from"
    assert caplog.messages == [f"{text} step 2", f"{text} the start"]


@pytest.mark.parametrize("zero", [True, False])
def test_another_machine_gives_other_weights(zero: bool, caplog: pytest.LogCaptureFixture) -> None:
    made = {"threads": 3, "precision": "bf16", "device": "cpu", "world_size": 2}
    start = resume.ResumePoint(Path(), None, {"execution": made})
    log = logging.getLogger("raypath.test")
    job: Any = SimpleNamespace(params=ResolvedParams(precision="fp32"), threads=1, log=log)

    def resolve(device: str, size: int) -> tuple[Any, ...]:
        group: Any = SimpleNamespace(device=SimpleNamespace(type=device), world_size=size, is_rank_zero=zero)
        found = resume.resolve_execution(start, job, group)
        return found.threads, found.precision, found.device, found.world_size

    assert resolve("cpu", 2) == (3, "bf16", "cpu", 2)
    assert not caplog.messages
    assert resolve("cpu", 1) == (1, "bf16", "cpu", 1)
    assert resolve("cuda", 2) == (1, "fp32", "cuda", 2)
    text = "a checkpoint of 2 worker(s) on cpu resumes with {}: weights will differ from an uninterrupted run's"
    assert caplog.messages == ([text.format("1 on cpu"), text.format("2 on cuda")] if zero else [])
