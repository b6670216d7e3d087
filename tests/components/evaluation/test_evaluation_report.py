"""The evaluation report: its contents, its page, and what of it the step logs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from raypath.components import Context, Dataset, Model
from raypath.components.core.arrays import Array
from raypath.components.core.columns import Column, Role
from raypath.components.evaluate import EvaluateParams, evaluate
from raypath.components.models.metadata import ModelMetadata
from raypath.components.preprocess import PreprocessParams, preprocess
from raypath.components.read import ReadParams
from raypath.components.reports.evaluation.build import build_report
from raypath.components.reports.evaluation.columns import slice_columns, texts_of
from raypath.components.reports.evaluation.contents import EvaluationReport
from raypath.components.reports.evaluation.outcome import Outcome
from raypath.components.reports.evaluation.render import render
from raypath.components.split import SplitParams, split
from raypath.components.tasks.catalog import load_task
from tests.components.reading import Read
from tests.tiny_classifier import LABELS, LENGTH, texts, tiny_classifier, tiny_dataset

COLUMNS = (
    Column(name="review", stored="input.review"),
    Column(name="region", kind="category", stored="input.region"),
    Column(name="new", kind="boolean", stored="input.new"),
    Column(name="price", kind="number", stored="input.price"),
    Column(name="at", kind="time", role=Role.TIME, stored="time"),
    Column(name="customer", kind="category", role=Role.GROUP, stored="group"),
)
HOSTILE = "<script>alert(1)</script> \u202eright to left \x1b[31m 😀"


class Logged:
    """Tracker that keeps the files that are logged to it."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def artifact(self, path: Path, folder: str = "") -> None:
        if path.suffix != ".png":
            self.files[f"{folder}/{path.name}"] = path.read_text(encoding="utf-8")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **more: None


class Page(HTMLParser):
    """Tags of a page, in order; raises AssertionError where one is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name in ("src", "href") or name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _data(folder: Path, given: list[Any], kind: pa.DataType, seed: int = 0, **fields: Any) -> Dataset:
    """Rows of several columns; a third of them is of the region south."""
    size, rng = len(given), np.random.default_rng(seed)
    folder.mkdir(parents=True)
    regions = ["south" if n % 3 == 0 else "north" for n in range(size)]
    table = pa.table(
        {
            "input.review": [f"the cup of tea was lovely {n} {HOSTILE if n % 5 == 0 else ''}" for n in range(size)],
            "input.region": pa.array([None if n == 1 else each for n, each in enumerate(regions)]),
            "input.new": pa.array(rng.random(size) < 0.5),
            "input.price": np.round(rng.random(size) * 100, 1),
            "time": pa.array(rng.integers(0, 10**15, size), pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "group": [f"person {n}" for n in range(size)],
            "label": pa.array(given, kind),
        }
    )
    pq.write_table(table, folder / "00000.parquet", row_group_size=100)
    return Dataset(uri=str(folder), digest="t" * 64, rows=size, columns=COLUMNS, source="mine.csv", **fields)


def _report(
    folder: Path, labels: tuple[str, ...], kind: str, size: int, errors: float = 0.05, **more: Any
) -> tuple[EvaluationReport, Dataset, Array]:
    """Report on made-up outputs: each row is right, except for a share of `errors`, and half of the region south."""
    rng, classes = np.random.default_rng(1), len(labels)
    south = np.arange(size) % 3 == 0
    wrong = rng.random(size) < np.where(south, 0.5, errors)
    scale = {"means": (0.0,) * classes, "scales": (1.0,) * classes} if kind == "number" else {}
    name = "regression" if kind == "number" else "text_classification"
    task = load_task(ModelMetadata(task=name, labels=labels, label_kind=kind, max_length=LENGTH, **scale))
    given: list[Any]
    if kind == "number":
        targets = rng.normal(size=(size, classes)).astype(np.float32)
        decoded = targets + rng.normal(size=(size, classes)) * np.where(wrong, 2.0, 0.1)[:, None]
        given, arrow = targets.tolist(), pa.list_(pa.float64())
    elif kind == "set":
        targets = (rng.random((size, classes)) < 0.3).astype(np.float32)
        flipped = wrong[:, None] & (rng.random((size, classes)) < 0.5)
        decoded = np.where((targets > 0) ^ flipped, 0.9, 0.1)
        given, arrow = [[labels[k] for k in np.flatnonzero(row)] for row in targets], pa.list_(pa.string())
    else:
        targets = np.arange(size) % classes
        logits = rng.normal(size=(size, classes)) * 0.3
        logits[np.arange(size), (targets + wrong) % classes] += 4
        decoded = task.decode(logits)
        given, arrow = [labels[k] for k in targets], pa.string()
    data = _data(folder, given, arrow, label_kind=kind, labels=labels)
    model = Model(task=name, base="tiny", labels=labels, label_kind=kind, max_length=LENGTH, digest="m")
    metrics = task.metrics(targets, decoded) | task.intervals(targets, decoded, 50, 0)
    report = build_report(model, data, Outcome(task, targets, decoded, **more), metrics)
    return report, data, np.asarray(wrong)


def test_a_slice_that_is_worse_is_named_and_others_are_not(tmp_path: Path) -> None:
    report, _, wrong = _report(tmp_path / "data", LABELS, "string", 600)
    assert [(each.column, each.value) for each in report.slices if each.worse] == [("region", "south")]
    south = report.slices[0]
    assert south.rows == 200
    assert south.score.value == pytest.approx(1 - wrong[::3].mean())
    assert south.others == pytest.approx(1 - np.delete(wrong, np.s_[::3]).mean())
    assert {each.column for each in report.slices} == {"text length", "region", "new", "price", "at"}, "no persons"
    assert sum(each.rows for each in report.slices if each.column == "price") == 600
    assert sum(each.rows for each in report.slices if each.column == "region") == 599, "one row has none"


def test_the_report_of_classes_agrees_with_the_metrics(tmp_path: Path) -> None:
    report, _, wrong = _report(tmp_path / "data", LABELS, "string", 600)
    assert np.trace(report.matrix) == 600 - wrong.sum()
    assert sum(each.count for each in report.confusions) == wrong.sum()
    assert report.confusions[0].count == max(each.count for each in report.confusions)
    for each in report.classes:
        assert each.recall.low < each.recall.value < each.recall.high
    assert report.metrics["macro_f1"].value == pytest.approx(np.mean([each.f1.value for each in report.classes]))
    assert report.metrics["accuracy"].low is not None
    assert "accuracy_low" not in report.metrics
    assert all(wrong[each.row] for each in report.errors)
    assert report.errors == sorted(report.errors, key=lambda each: -(each.confidence or 0))
    assert report.thresholds == [], "three classes have no threshold"


def test_label_errors_need_a_model_that_agrees(tmp_path: Path) -> None:
    report, *_ = _report(tmp_path / "weak", LABELS, "string", 600, errors=0.2)
    assert report.label_errors is None
    assert "trusted from 80%" in report.skipped[0]
    rng = np.random.default_rng(0)
    targets = np.arange(500) % 3
    logits = rng.normal(size=(500, 3)) * 0.3
    logits[np.arange(500), targets] += 5
    planted = np.arange(0, 500, 25)
    labelled = targets.copy()
    labelled[planted] = (labelled[planted] + 1) % 3
    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=LENGTH))
    data = _data(tmp_path / "data", [LABELS[k] for k in labelled], pa.string())
    model = Model(task="text_classification", base="tiny", max_length=LENGTH)
    found = build_report(model, data, Outcome(task, labelled, task.decode(logits)), {}).label_errors
    assert found is not None
    named = {each.row for each in found.rows}
    assert named <= set(planted.tolist()), "no row that is right"
    assert len(named) == found.count >= 10


def test_thresholds_of_two_classes_are_those_of_their_decisions(tmp_path: Path) -> None:
    report, *_ = _report(tmp_path / "data", ("no", "yes"), "string", 300)
    half = next(each for each in report.thresholds if each.threshold == 0.5)
    yes = report.classes[1]
    assert (half.precision, half.recall) == (pytest.approx(yes.precision.value), pytest.approx(yes.recall.value))
    assert report.decision == 0.5


@pytest.mark.parametrize(
    ("labels", "kind", "size"),
    [
        (LABELS, "string", 300),
        (("no", "yes"), "string", 40),
        (tuple(f"intent {n} {'long ' * 30}" for n in range(60)), "string", 600),
        (("<b>a</b>", "", "عربي", "😀"), "set", 200),
        (("price",), "number", 200),
        (tuple(f"n{k}" for k in range(9)), "number", 60),
        (LABELS, "string", 3),
        (("a", "b"), "set", 1),
        (("a",), "number", 1),
    ],
    ids=["three", "two", "sixty", "sets", "number", "numbers", "few", "one-set", "one-number"],
)
def test_pages_of_any_data_are_complete_and_inert(
    labels: tuple[str, ...], kind: str, size: int, tmp_path: Path
) -> None:
    report, data, _ = _report(tmp_path / "data", labels, kind, size)
    shown = texts_of(data, report.row_numbers())
    assert len(shown) == len(report.row_numbers()) <= 140
    for page in (render(report, shown), render(report, {})):
        tags = Page(page).tags
        assert not tags & {"script", "img", "link", "iframe"}
        assert "\u202e" not in page
        assert "\x1b" not in page
        assert "http" not in page.replace("http-equiv", "")
        assert not re.search(r"\bnan\b|\binf\b", page)
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report


def test_text_lengths_and_languages_are_slices(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    german = "der Tee ist sehr gut und ich habe ihn auch gekauft"
    rows = ["the cup of tea was lovely and I have it", german] * 60 + ["xyzzy"] * 3 + ["这个产品非常好"] * 20
    pq.write_table(
        pa.table({"text": rows, "label": ["a"] * len(rows)}), tmp_path / "data" / "0.parquet", row_group_size=50
    )
    found = {each.name: each for each in slice_columns(Dataset(uri=str(tmp_path / "data"), rows=len(rows)))}
    assert found["language"].values == ("en", "de", "zh")
    assert np.bincount(found["language"].codes + 1).tolist() == [3, 60, 60, 20]
    lengths = np.array([len(row) for row in rows])
    for n, value in enumerate(found["text length"].values):
        inside = lengths[found["text length"].codes == n]
        assert value in (f"{inside.min()} to {inside.max()} characters", f"{inside.min()} characters")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_columns_that_no_model_reads_are_slices(
    form: str, tmp_path: Path, reading: Read, base: Path, make_context: Callable[..., Context], settle: Any
) -> None:
    regions = ["north", "south", None]
    rows = [{"text": f"a cup {n}", "label": "ab"[n % 2], "region": regions[n % 3], "age": n} for n in range(90)]
    path = tmp_path / f"rows.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [f"{row['text']},{row['label']},{row['region'] or ''},{row['age']}" for row in rows]
        path.write_text("\n".join(["text,label,region,age", *lines]))
    made, stored = reading(path, slices=("region", "age"), kinds={"age": "number"})
    assert [row["slices.region"] for row in stored] == [row["region"] for row in rows], "a missing value drops no row"
    made = made.model_copy(update={"uri": str(sorted(tmp_path.glob("step-*/out"))[-1])})
    ctx = make_context("split")
    parts = settle(ctx, split.fn(ctx, made, SplitParams(valid=0.2, test=0.5)))
    ctx = make_context("preprocess")
    parts = settle(ctx, preprocess.fn(ctx, parts, PreprocessParams(tokenizer=str(base))))
    found = {each.name: each for each in slice_columns(parts.test)}
    assert sorted(found["region"].values) == ["north", "south"]
    assert len(found["age"].values) == 4
    named = [found["region"].values[code] if code >= 0 else None for code in found["region"].codes]
    ages = pq.read_table(parts.test.uri)["slices.age"].to_pylist()
    assert named == [rows[int(age)]["region"] for age in ages]
    with pytest.raises(ValidationError, match="same column twice"):
        ReadParams(slices=("text",))


def test_texts_are_those_of_the_rows(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "tiny")
    data = tiny_dataset(tmp_path / "data", model)
    assert texts_of(data, [3, 99, 100, 199]) == {n: texts(200)[n] for n in (3, 99, 100, 199)}
    assert texts_of(data, []) == {}


@pytest.mark.parametrize("allowed", [False, True])
def test_texts_reach_mlflow_only_where_they_are_allowed(
    allowed: bool, tmp_path: Path, make_context: Callable[..., Context]
) -> None:
    model = tiny_classifier(tmp_path / "tiny")
    data = tiny_dataset(tmp_path / "data", model)
    tracker = Logged()
    ctx = make_context("evaluate", track=tracker)
    params = EvaluateParams(resamples=20, plots=False, texts=allowed)
    made = evaluate.fn(ctx, model, data, params, data.model_copy(update={"digest": "valid"}))
    local = (ctx.out / "report.html").read_text(encoding="utf-8")
    report = EvaluationReport.model_validate_json((ctx.out / "report.json").read_text(encoding="utf-8"))
    worst = texts(200)[report.errors[0].row]
    assert worst in local
    assert worst not in (ctx.out / "report.json").read_text(encoding="utf-8")
    assert (worst in tracker.files["evaluation/report.html"]) is allowed
    assert set(tracker.files) == {"evaluation/report.html", "evaluation/report.json"}
    assert {(ctx.out / name).stat().st_mode & 0o777 for name in ("report.html", "report.json")} == {0o600}
    assert report.metrics["accuracy"].value == made.metrics["accuracy"]
    assert report.calibration is not None
    assert report.calibration.temperature is not None
    assert report.calibration.temperature.valid_rows == 64
    assert made.model_copy(update={"uri": str(ctx.out)}).page == ctx.out / "report.html"


def test_an_error_in_the_report_is_a_warning(
    tmp_path: Path, make_context: Callable[..., Context], caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_classifier(tmp_path / "tiny")
    data = tiny_dataset(tmp_path / "data", model)
    # Scoring reads `input_ids` and `label`; a text that cannot be read is met by the report alone.
    for path in sorted(Path(data.uri).glob("*.parquet")):
        pq.write_table(pq.read_table(path).drop_columns(["text"]), path)
    made = evaluate.fn(make_context("evaluate"), model, data, EvaluateParams(resamples=0, plots=False))
    assert made.metrics["accuracy"] >= 0
    assert "the evaluation report was not written" in caplog.text
