"""The step `inspect`: a report of the splits, logged without texts, that never ends a run."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.core.artifacts import Dataset, Settings, Splits
from raypath.components.core.context import Context, NoTracker
from raypath.components.inspect import inspect
from raypath.components.inspection.params import InspectParams
from raypath.components.inspection.report import InspectionReport
from tests.components.inspection.planted import texts


class _Tracker(NoTracker):
    def __init__(self) -> None:
        self.files: list[str] = []

    def artifact(self, path: Path, folder: str = "") -> None:
        assert path.is_file()
        self.files.append(f"{folder}/{path.name}")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    return replace(Context("inspect", tmp_path / "out", tmp_path / "scratch"), track=_Tracker())


def _splits(folder: Path) -> Splits:
    rows, labels = texts(500)
    rows[450] = rows[1]
    made: dict[str, Dataset] = {}
    for name, start, end in (("train", 0, 400), ("valid", 400, 440), ("test", 440, 500)):
        (folder / name).mkdir(parents=True)
        table = pa.table({"text": rows[start:end], "label": labels[start:end], "group": labels[start:end]})
        pq.write_table(table, folder / name / "00000.parquet")
        made[name] = Dataset(uri=str(folder / name), rows=end - start, source="mine.csv")
    return Splits(**made)


def test_the_report_of_the_splits(context: Context, tmp_path: Path) -> None:
    made = inspect.fn(context, _splits(tmp_path / "data"), InspectParams())
    report = InspectionReport.model_validate_json((context.out / "report.json").read_text(encoding="utf-8"))
    assert (report.source, report.splits) == ("mine.csv", {"train": 400, "valid": 40, "test": 60})
    [leak] = [each for each in report.findings if each.kind == "leaks"]
    assert [(place.source, place.row) for place in leak.rows] == [("train", 2)]
    assert (made.rows, made.metrics["errors"]) == (500, 1.0)
    assert sorted(path.name for path in context.out.iterdir()) == ["report.html", "report.json", "rows.csv"]
    tracker: Any = context.track
    assert tracker.files == ["data/report.html", "data/report.json"]
    assert list(context.scratch.iterdir()) == [], "the columns are removed"


def test_tasks_write_the_same_report(
    context: Context, tmp_path: Path, ray_head: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypath.components.data.streaming import stream

    splits = _splits(tmp_path / "data")
    rows = pq.read_table(tmp_path / "data" / "train")
    pq.write_table(rows.slice(0, 150), tmp_path / "data" / "train" / "00000.parquet")
    pq.write_table(rows.slice(150), tmp_path / "data" / "train" / "00001.parquet")
    inspect.fn(context, splits, InspectParams())
    wanted = [(context.out / name).read_bytes() for name in ("report.json", "rows.csv")]
    monkeypatch.setattr(stream, "INLINE_BYTES", 0)
    inspect.fn(context, splits, InspectParams())
    assert [(context.out / name).read_bytes() for name in ("report.json", "rows.csv")] == wanted
    assert list(context.scratch.iterdir()) == []


def test_an_error_is_a_warning_and_the_report_empty(
    context: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = _splits(tmp_path / "data")
    (tmp_path / "data" / "valid" / "00000.parquet").write_bytes(b"no parquet")
    made = inspect.fn(context, splits, InspectParams())
    assert (made.rows, made.metrics) == (0, {})
    assert "the data report was not written (ArrowInvalid); the run is not affected" in caplog.text


def test_it_can_be_left_out(context: Context, tmp_path: Path) -> None:
    made = inspect.fn(context, _splits(tmp_path / "data"), InspectParams(enabled=False))
    assert (made.rows, list(context.out.iterdir())) == (0, [])


def test_a_base_that_is_not_there_leaves_words(context: Context, tmp_path: Path) -> None:
    params = InspectParams().using("hf://nobody/nothing@none", 16)
    inspect.fn(context, _splits(tmp_path / "data"), params.model_copy(update={"base": str(tmp_path / "none")}))
    report = InspectionReport.model_validate_json((context.out / "report.json").read_text(encoding="utf-8"))
    assert report.lengths is not None
    assert (report.lengths.unit, report.lengths.truncated) == ("words", 500)
    assert any("lengths in tokens" in line for line in report.skipped)


def test_errors_that_split_does_not_report_are_logged(
    context: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = _splits(tmp_path / "data")
    rows = pq.read_table(tmp_path / "data" / "train")
    near = rows["text"].to_pylist()
    test = pq.read_table(tmp_path / "data" / "test")
    changed = [f"{near[5]} Indeed", *test["text"].to_pylist()[1:]]
    pq.write_table(test.set_column(0, "text", pa.array(changed)), tmp_path / "data" / "test" / "00000.parquet")
    with caplog.at_level(logging.INFO):
        made = inspect.fn(context, splits, InspectParams())
    assert caplog.messages == [
        "1 row of train has nearly the same text as a row of valid or test, which inflates the metrics; "
        "remove it, or name a column that groups it with read.group"
    ]
    assert made.metrics == {"errors": 2.0, "warnings": 2.0, "notes": 0.0}


def test_the_base_and_the_length_that_were_chosen(context: Context, tmp_path: Path, base: Path) -> None:
    settings = Settings(values={"base": str(base), "max_length": 20})
    inspect.fn(context, _splits(tmp_path / "data"), InspectParams(), settings)
    report = InspectionReport.model_validate_json((context.out / "report.json").read_text(encoding="utf-8"))
    assert report.lengths is not None
    assert (report.lengths.unit, report.lengths.max_length) == ("tokens", 20)
