"""The step evaluate with the parts below it replaced: its warnings, files and reports."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypath.components import Context, Dataset, Model, evaluate
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from tests.components.recording import Recorder

Make = Callable[..., Context]
PACKAGE = "raypath.components"
TRAIN, VALID = Dataset(rows=600, uri="train", digest="1"), Dataset(rows=300, uri="valid", digest="2")
MODEL = Model(task="text_classification", base="tiny", labels=("a", "b"), max_length=8, digest="m")


def test_few_test_rows_are_warned_of() -> None:
    task = load_task(ModelMetadata(task=MODEL.task, labels=("a", "b"), max_length=8))
    advice = (
        "its metrics are a rough estimate, and their intervals too narrow; add rows, or use a larger -s split.test="
    )

    def warned(rows: int) -> list[str]:
        targets = np.arange(rows) % 2
        return evaluate._warnings(task, targets, np.eye(2)[targets])

    assert warned(1) == [f"test has only 1 row: {advice}"]
    assert warned(29) == [f"test has only 29 rows: {advice}"]
    assert warned(30) == []


@pytest.mark.parametrize(("rows", "scored"), [(12, 64), (768, 64), (1200, 100), (24_000, 2_000), (90_000, 2_000)])
def test_valid_rows_of_a_report(rows: int, scored: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def sample(folder: Path, data: Dataset, number: int) -> Any:
        asked.append(number)
        return "tokens", "targets"

    monkeypatch.setattr(f"{PACKAGE}.inference.batch.scoring.sample_rows", sample)
    task: Any = SimpleNamespace(plain="labels", decode=lambda recorded: f"decoded {recorded}")
    engine: Any = SimpleNamespace(task=task, record=lambda tokens, seed: f"{tokens} {seed}")
    data = Dataset(rows=rows)
    assert evaluate._valid_rows(Path(), engine, data, VALID) == ("targets", "decoded tokens 0")
    assert asked == [scored]
    assert evaluate._valid_rows(Path(), engine, data, None) is None
    assert evaluate._valid_rows(Path(), engine, data, Dataset(rows=0)) is None
    task.plain = "values"
    assert evaluate._valid_rows(Path(), engine, data, VALID) is None


def test_files_of_an_evaluation(tmp_path: Path) -> None:
    evaluate._write_metrics(tmp_path, {"f1": 0.5}, MODEL, Dataset(rows=3, digest="t"), 3)
    text = (tmp_path / "metrics.json").read_text()
    wanted = {"rows": 3, "model": "m", "test": "t", "labels": ["a", "b"], "metrics": {"f1": 0.5}}
    assert (json.loads(text), text[-1], text[1:5]) == (wanted, "\n", '\n  "')
    with pytest.raises(ValueError, match="not JSON compliant"):
        evaluate._write_metrics(tmp_path, {"f1": float("nan")}, MODEL, Dataset(rows=3), 3)
    task = load_task(ModelMetadata(task=MODEL.task, labels=("a", "b"), max_length=8))
    evaluate._write_predictions(tmp_path, task, np.array([0, 1]), np.array([[0.75, 0.25], [0.5, 0.5]]))
    table = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert table == {"row": [0, 1], "label": ["a", "b"], "predicted": ["a", "a"], "score": [0.75, 0.5]}
    assert evaluate._draw(tmp_path / "plots", {}) == []
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("texts", [True, False])
def test_the_report_is_logged_with_texts_if_allowed(
    texts: bool, make_context: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written: list[Any] = []
    notes = Recorder()
    ctx = make_context("evaluate", track=notes)
    logged: list[Path] = []
    monkeypatch.setattr(notes, "artifact", lambda path, folder: logged.append(path))
    report: Any = SimpleNamespace(row_numbers=lambda: [1])
    reports = f"{PACKAGE}.reports.evaluation"
    monkeypatch.setattr(f"{reports}.build.build_report", lambda *given: report)
    monkeypatch.setattr(f"{reports}.columns.texts_of", lambda data, rows: {1: "text"})
    monkeypatch.setattr(f"{reports}.render.write_report", lambda folder, _, texts: written.append((folder, texts)))
    params = evaluate.EvaluateParams(texts=texts)
    outcome: Any = None
    evaluate._report(ctx, MODEL, TRAIN, outcome, {}, params)
    place = ctx.out if texts else ctx.scratch / ".report"
    assert written == [(ctx.out, {1: "text"}), *([] if texts else [(place, {})])]
    assert logged == [place / "report.html", place / "report.json"]

    def fail(*given: Any) -> None:
        raise KeyError("private")

    monkeypatch.setattr(f"{reports}.build.build_report", fail)
    with caplog.at_level(logging.WARNING):
        evaluate._report(ctx, MODEL, TRAIN, outcome, {}, params)
    assert caplog.messages == ["the evaluation report was not written (KeyError); the metrics are not affected"]
