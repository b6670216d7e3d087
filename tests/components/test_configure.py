"""The step `configure`: real steps of a tiny model are timed; each part of the result has its own settings."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raypath.components import Configuration, Context, Dataset, Splits
from raypath.components.configuration.facts import DataFacts
from raypath.components.configuration.learning_curve import describe, learning_curve, report_learning_curve
from raypath.components.configuration.methods import has_few_rows
from raypath.components.configure import configure
from raypath.components.core.labels import LabelKind
from raypath.components.data.streaming.parquet import TableWriter
from raypath.components.finetune import FinetuneParams, finetune
from raypath.components.models.metadata import ModelMetadata
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.training.outlook import Outlook
from raypath.components.training.params import ResolvedParams
from tests.components.recording import Recorder
from tests.tiny import write_part

WORDS = {"good": "lovely great tasty fresh", "bad": "awful stale broken late"}


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    """240 rows of two classes that a word tells apart, 30 of them in valid and in test."""
    return _splits(tmp_path, 180)


def _splits(tmp_path: Path, train: int) -> Splits:
    rng, made = np.random.default_rng(0), {}
    for name, rows in {"train": train, "valid": 30, "test": 30}.items():
        labels = rng.choice(sorted(WORDS), size=rows)
        texts = [f"order {n} was {rng.choice(WORDS[label].split())} again" for n, label in enumerate(labels)]
        table = pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels.tolist(), pa.string())})
        with TableWriter(tmp_path / "rows" / name, table.schema) as writer:
            writer.write(table)
        made[name] = Dataset(uri=str(tmp_path / "rows" / name), rows=rows, source="mine.csv")
    return Splits(**made)


def test_it_chooses_what_is_auto_and_logs_one_line(
    base: Path, splits: Splits, make_context: Callable[..., Context], caplog: pytest.LogCaptureFixture
) -> None:
    ctx = make_context("configure", track=Recorder())
    with caplog.at_level(logging.INFO):
        made = configure.fn(ctx, splits, FinetuneParams(base=str(base), lr=3e-3, threads=1), PreprocessParams())
    [line] = [record.getMessage() for record in caplog.records if record.name == "raypath.configure"]
    assert line.startswith("epochs=20, warmup=0.1, batch_tokens=256, frozen_layers=0, patience=3, method=full for 180 ")
    assert " 180 rows of 2 classes, " in line
    assert "; fine-tuning takes at most " in line
    assert "lr" not in made.finetune.values, "it was given"
    assert made.inputs.values == {"base": str(base), "max_length": 32}
    assert made.finetune.seconds > 0
    assert {"inputs/settings.json", "finetune/settings.json"} == {
        path.relative_to(ctx.out).as_posix() for path in ctx.out.rglob("*.json")
    }


def test_methods_are_compared_where_a_class_has_few_rows(
    base: Path, tmp_path: Path, make_context: Callable[..., Context], caplog: pytest.LogCaptureFixture
) -> None:
    params = FinetuneParams(base=str(base), lr=3e-3, epochs=1, threads=1)
    with caplog.at_level(logging.INFO, "raypath.configure"):
        made = configure.fn(make_context("configure"), _splits(tmp_path, 24), params, PreprocessParams())
    [line] = [record.getMessage() for record in caplog.records if record.name == "raypath.configure"]
    method = made.finetune.values["method"]
    assert f"; {method} by cross-validation on the training rows, mean macro_f1: full 0." in line
    assert all(f"{name} " in line for name in ("contrastive", "linear_probe"))


def test_methods_are_not_compared_where_that_would_take_longer_than_the_training() -> None:
    def compared(rows: int, classes: int) -> bool:
        return has_few_rows(DataFacts(rows, 30, (rows // max(1, classes),) * classes, np.full(9, 20), 512, 2))

    assert [compared(rows, 2) for rows in (2, 128, 130)] == [True, True, False]
    assert [compared(rows, 10) for rows in (320, 330)] == [True, False]
    assert not compared(20, 0), "numbers"


def test_what_preprocess_gets_does_not_depend_on_settings_of_the_training(
    base: Path, splits: Splits, make_context: Callable[..., Context]
) -> None:
    def chosen(**settings: object) -> Configuration:
        params = FinetuneParams(base=str(base), threads=1).override(settings)
        return configure.fn(make_context("configure"), splits, params, PreprocessParams())

    one, other = chosen(), chosen(epochs=1, minutes=9.0)
    assert one.inputs == other.inputs
    assert one.finetune.values != other.finetune.values


def test_the_steps_after_it_take_what_it_chose(
    base: Path, splits: Splits, make_context: Callable[..., Context], settle: Callable[..., Configuration]
) -> None:
    ctx, params = make_context("configure"), FinetuneParams(base=str(base), lr=3e-3, threads=1)
    made = settle(ctx, configure.fn(ctx, splits, params, PreprocessParams()))
    ctx = make_context("preprocess")
    encoded = settle(ctx, preprocess.fn(ctx, splits, PreprocessParams(), made.inputs))
    assert encoded.train.max_length == made.inputs.values["max_length"]
    notes = Recorder()
    finetune.fn(make_context("finetune", track=notes), encoded.train, encoded.valid, made.finetune, params)
    assert {f"used.{name}": value for name, value in made.finetune.values.items()}.items() <= notes.settings.items()
    assert len(notes.points["valid/accuracy"]) <= made.finetune.values["epochs"] == 20
    assert notes.points["training/estimated_seconds"][0] > 0


def test_without_it_preprocess_and_finetune_choose_for_themselves(
    base: Path, splits: Splits, make_context: Callable[..., Context], settle: Callable[..., Configuration]
) -> None:
    ctx = make_context("preprocess")
    encoded = settle(ctx, preprocess.fn(ctx, splits, PreprocessParams().using(str(base))))
    assert encoded.train.max_length == 32
    params, notes = FinetuneParams(base=str(base), lr=3e-3, threads=1), Recorder()
    finetune.fn(make_context("finetune", track=notes), encoded.train, encoded.valid, None, params)
    assert (notes.settings["used.epochs"], notes.settings["used.batch_tokens"]) == (20, 256)
    assert "used.lr" not in notes.settings, "it was given"


def test_the_curve_rises_where_rows_are_lacking() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2_400)
    hard = rng.normal(size=(2_400, 300)) + 0.1 * y[:, None]
    easy = rng.normal(size=(2_400, 5)) + 4.0 * y[:, None]
    for x, sentence in ((hard, "more data would help: "), (easy, "more data would hardly help: ")):
        curve = learning_curve(x[:400], y[:400], x[400:], y[400:], 0)
        assert list(curve) == [100, 200, 400]
        assert describe(curve, 400).startswith(sentence)
    assert describe({100: 0.5, 200: 0.8}, 4_000).endswith("from 100 to 200 rows; train has 4,000")
    one = np.zeros(400, np.int64)
    assert describe(learning_curve(hard[:400], one, hard[400:], y[400:], 0), 400).startswith("whether more data")


def test_the_curve_is_logged_and_numbers_have_none(
    base: Path, tmp_path: Path, make_context: Callable[..., Context]
) -> None:
    (tmp_path / "valid").mkdir()
    parts = write_part(tmp_path, base, 240, 0), write_part(tmp_path / "valid", base, 60, 1)
    metadata = ModelMetadata(task="text_classification", labels=("a", "b"), max_length=64, base=str(base))
    notes = Recorder()
    curve = report_learning_curve(make_context("finetune", track=notes), base, parts, metadata)
    assert list(curve) == ["60", "120", "240"]
    assert notes.points["learning_curve/accuracy_240_rows"][0] == curve["240"]
    numbers = metadata.model_copy(update={"label_kind": LabelKind.NUMBER})
    assert report_learning_curve(make_context("finetune"), base, parts, numbers) == {}


@pytest.mark.parametrize(
    ("scores", "step", "sentence"),
    [([0.5, 0.7, 0.8], 30, "more epochs may help"), ([0.5, 0.8, 0.8], 30, "more epochs would hardly help"),
     ([0.8, 0.7, 0.7], 20, "more epochs would not help"), ([0.8], 30, "")],
)  # fmt: skip
def test_what_more_passes_would_bring(scores: list[float], step: int, sentence: str) -> None:
    outlook = Outlook(ResolvedParams(epochs=3), seconds=60.0)
    for number, score in enumerate(scores):
        outlook.evaluated(number, score)
    assert outlook.more_passes(step, 30).startswith(sentence)
    numbers = outlook.report(step, 30, logging.getLogger("test"))
    assert numbers["training/estimated_seconds"] == 60.0 * step / 30, "of the steps that ran"
