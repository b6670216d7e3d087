"""Small parts of inference in full: shapes of batches, targets, throughput, memory, and the messages of each."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypath.components import DataError, Dataset, ParamsError, PlatformError, Unavailable
from raypath.components.core.columns import Column, inputs_of
from raypath.components.core.labels import LabelKind
from raypath.components.inference import bucketing, golden_examples, memory
from raypath.components.inference.batch import comparison
from raypath.components.inference.batch.chunks import count_attempt, text_rows
from raypath.components.inference.batch.comparison import Contest
from raypath.components.inference.batch.running import Throughput, clock, worker_error
from raypath.components.inference.batch.targets import Classes, Nothing, Numbers, Sets, target_reader
from raypath.components.inference.local_model import _chunks, check_device
from raypath.components.inference.memory import InsufficientMemory
from raypath.components.models.metadata import ModelMetadata
from raypath.components.predict import PredictParams, predict
from raypath.components.registry.client import RegisteredVersion
from raypath.components.registry.evidence import Rules


def test_widths_and_numbers_of_rows() -> None:
    widths = {0: 8, 1: 8, 8: 8, 9: 16, 64: 64, 65: 80, 128: 128, 129: 160, 256: 256, 257: 320, 512: 512, 513: 640}
    assert {length: bucketing.padded_width(length) for length in widths} == widths
    numbers = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 16, 17, 20, 21, 33)
    assert [bucketing.round_up(n) for n in numbers] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 10, 12, 14, 16, 16, 20, 20, 24, 40]
    assert [bucketing.round_down(n) for n in numbers] == [1, 2, 3, 4, 5, 6, 7, 8, 8, 10, 10, 12, 14, 16, 16, 20, 20, 32]


@pytest.mark.parametrize(
    ("lengths", "budget", "few", "wanted"),
    [
        ([], 8, False, []),
        ([5, 1, 3], 6, False, [[1, 2], [0]]),
        ([2, 2, 2, 2], 4, False, [[0, 1], [2, 3]]),
        ([9, 1], 4, False, [[1], [0]]),
        ([0, 0, 0], 2, False, [[0, 1], [2]]),
        ([4] * 9 + [5], 36, True, [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]),
        ([4] * 9 + [36], 36, True, [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9]]),
        ([4] * 9 + [9], 36, True, [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9]]),
    ],
)
def test_groups_of_rows(lengths: list[int], budget: int, few: bool, wanted: list[list[int]]) -> None:
    assert bucketing.group_by_length(lengths, budget, few=few) == wanted


def _metadata(kind: str, labels: tuple[str, ...] = ("a", "b")) -> ModelMetadata:
    return ModelMetadata(task="text_classification", labels=labels, max_length=8, label_kind=LabelKind(kind))


def _rows(label: Any, kind: pa.DataType) -> Any:
    return pa.record_batch({"label": pa.array(label, kind)})


NUMBERS, STRINGS = pa.list_(pa.float64()), pa.list_(pa.string())


@pytest.mark.parametrize(
    ("reader", "batch", "wanted"),
    [
        (Classes(("a", "b")), _rows(["b", "a"], pa.string()), [1, 0]),
        (
            Sets(("a", "b", "c")),
            _rows([["c", "a"], [], ["b"]], pa.list_(pa.string())),
            [[1, 0, 1], [0, 0, 0], [0, 1, 0]],
        ),
        (Numbers((1, 0)), _rows([[1.0, 2.0], [3.0, 4.0]], NUMBERS), [[2, 1], [4, 3]]),
        (Nothing(), _rows(["x", None], pa.string()), [0, 0]),
    ],
)
def test_targets(reader: Any, batch: Any, wanted: list[Any]) -> None:
    found = reader(batch)
    assert found.tolist() == wanted
    assert reader.columns == (() if isinstance(reader, Nothing) else ("label",))
    assert found.dtype == (np.float32 if isinstance(reader, Sets | Numbers) else np.int64)


@pytest.mark.parametrize(
    ("reader", "batch", "says"),
    [
        (
            Classes(("a",)),
            _rows(["SECRET"], pa.string()),
            "the test split has a label that the model never saw; train and test on the same classes",
        ),
        (
            Classes(("a",)),
            _rows([None], pa.string()),
            "the test split has a row without a label; leave such rows out of the data",
        ),
        (Numbers((0, 1)), _rows([[1.0]], NUMBERS), "the test split has a row without 2 targets; read it again"),
        (
            Numbers((0,)),
            _rows([[float("inf")]], NUMBERS),
            "the test split has a target that is NaN or infinite; leave such rows out of the data",
        ),
    ],
)
def test_targets_that_cannot_be_read(reader: Any, batch: Any, says: str) -> None:
    with pytest.raises(DataError) as told:
        reader(batch)
    assert str(told.value) == says


def test_readers_of_targets() -> None:
    data = Dataset(rows=1, label_kind=LabelKind.STRING, labels=("a", "b"))
    assert target_reader(_metadata("string"), data) == Classes(("a", "b"))
    assert target_reader(_metadata("none"), data) == Nothing()
    assert target_reader(_metadata("set"), data.model_copy(update={"label_kind": LabelKind.SET})) == Sets(("a", "b"))
    numbers = data.model_copy(update={"label_kind": LabelKind.NUMBER, "labels": ("b", "a")})
    assert target_reader(_metadata("number"), numbers) == Numbers((1, 0))
    assert target_reader(_metadata("number"), numbers.model_copy(update={"labels": ()})) == Numbers((0, 1))
    with pytest.raises(DataError) as kind:
        target_reader(_metadata("set"), data)
    what = "the test split has labels of kind string; the model was trained on set"
    assert str(kind.value) == f"{what}; read it with -s read.kind=set"
    with pytest.raises(DataError) as names:
        target_reader(_metadata("number"), numbers.model_copy(update={"labels": ("a", "c")}))
    what = "the test split has the targets a, c; the model's are a, b"
    assert str(names.value) == f"{what}; name the same columns with -s read.label="


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 2_600 << 20)
    memory.check_memory(2_000 << 20)
    with pytest.raises(InsufficientMemory) as told:
        memory.check_memory((2_000 << 20) + 1_000_000)
    what = "it needs 2,601 MiB of memory and 2,600 MiB are free"
    assert str(told.value) == f"{what}; serve it on a machine with more memory"


@pytest.mark.parametrize(
    ("device", "threads", "says"),
    [
        ("moon", 0, "device='moon' is unknown; use one of auto, cpu, cuda"),
        ("cpu", -1, "threads=-1; wanted an integer of at least 0; 0 leaves torch's own number"),
        ("cpu", 1.5, "threads=1.5; wanted an integer of at least 0; 0 leaves torch's own number"),
        ("cuda", 0, "device='cuda', and PyTorch finds no GPU here; use device='auto' or 'cpu'"),
    ],
)
def test_devices(device: str, threads: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for known in ("auto", "cpu"):
        check_device(known, 0)
    with pytest.raises(ParamsError) as told:
        check_device(device, threads)
    assert str(told.value) == says
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device("cuda", 1)


def test_long_lists_are_predicted_in_pieces() -> None:
    assert [len(chunk) for chunk in _chunks(["x"] * 2_049)] == [1_024, 1_024, 1]
    assert list(_chunks([])) == []


class _Engine:
    """Answers with fixed outputs."""

    def __init__(self, precision: str, outputs: list[list[float]]) -> None:
        self.precision, self.outputs = precision, np.asarray(outputs, dtype=np.float32)

    def record(self, tokens: Any) -> Any:
        return self.outputs


@pytest.mark.parametrize(
    ("precision", "outputs", "says"),
    [
        ("fp32", [[1.0, 2.0], [3.0, 4.0]], ""),
        ("fp32", [[1.0, 2.0], [3.0, 4.039]], ""),
        ("fp32", [[1.0, 2.0], [3.0, 4.05]], "its output for example 2 is off by 0.05; at most 0.04 is allowed"),
        ("fp32", [[1.0, 2.5], [3.0, 4.0]], "its output for example 1 is off by 0.5; at most 0.04 is allowed"),
        ("openvino-int8", [[1.0, 2.5], [3.0, 4.5]], ""),
        ("openvino-int8", [[1.0, 2.0], [3.0, 4.7]], "its output for example 2 is off by 0.7; at most 0.6 is allowed"),
        ("bf16", [[1.0, 2.0], [3.0, 4.5]], ""),
        ("fp32", [[float("nan"), 2.0], [3.0, 4.0]], "its output for example 1 is off by nan; at most 0.04 is allowed"),
        ("fp32", [[1.0], [3.0]], "it has 1 outputs; 2 were recorded"),
    ],
)
def test_recorded_examples(precision: str, outputs: list[list[float]], says: str, tmp_path: Path) -> None:
    known = {"fp32": [[1.0, 2.0], [3.0, 4.0]], "openvino-int8": [[1.0, 2.0], [3.0, 4.0]]}
    tokenizer: Any = SimpleNamespace(encode=lambda texts: texts)
    engine: Any = _Engine(precision, outputs)
    golden_examples.check_predictions(tmp_path, tokenizer, engine)
    (tmp_path / "examples.json").write_text(json.dumps({"texts": ["a", "b"], "outputs": known}))
    fix = "register the model again; the previous version stays in service"
    if says:
        with pytest.raises(DataError) as told:
            golden_examples.check_predictions(tmp_path, tokenizer, engine)
        assert str(told.value) == f"{says}; {fix}"
    else:
        golden_examples.check_predictions(tmp_path, tokenizer, engine)
    (tmp_path / "examples.json").write_text("{")
    with pytest.raises(DataError) as corrupt:
        golden_examples.check_predictions(tmp_path, tokenizer, engine)
    assert str(corrupt.value) == f"its examples.json is corrupt; {fix}"
    (tmp_path / "examples.json").write_text(json.dumps({"texts": [], "outputs": {"openvino": []}}))
    golden_examples.check_predictions(tmp_path, tokenizer, engine)


def test_a_first_version_and_one_that_is_not_comparable(make_context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimpleNamespace(task="text_generation", label_kind="none")
    report: Any = SimpleNamespace(metrics={"f1": 0.51239}, model=model)
    contest = Contest(make_context("register"), report, "f1", Rules())
    found = contest.decide(None, {})
    assert (found.promote, found.reason) == (True, "f1 0.5124; there was no champion")
    assert contest.decision is found
    champion = SimpleNamespace(name="m", version=3)
    monkeypatch.setattr(comparison, "resolve", lambda *_: ("m", 3, Path("/m")))

    def differ(*_: Any) -> Any:
        raise DataError("it has another task or other labels")

    monkeypatch.setattr(Contest, "_evidence", differ)
    rival: RegisteredVersion = champion  # type: ignore[assignment]
    found = contest.decide(rival, {})
    reason = "not comparable with version 3: it has another task or other labels"
    assert (found.promote, found.reason) == (False, reason)


def test_attempts_are_counted(tmp_path: Path) -> None:
    for _ in range(3):
        count_attempt(tmp_path / "a", "chunk-1", 3)
    count_attempt(tmp_path / "a", "chunk-2", 3)
    with pytest.raises(PlatformError) as told:
        count_attempt(tmp_path / "a", "chunk-1", 3)
    fix = "use a machine with more memory, or set -s predict.actors=1"
    assert str(told.value) == f"prediction workers crashed 3 times, the last at chunk-1; {fix}"


def test_progress_of_a_prediction() -> None:
    reports: list[Any] = []
    metrics: list[dict[str, float]] = []
    track = SimpleNamespace(metrics=metrics.append)
    ctx: Any = SimpleNamespace(report=lambda *args: reports.append(args), track=track)
    Throughput(ctx, 4_000, 1_000)
    found = Throughput(ctx, 4_000, 0)
    found.log()
    found.called = 90.0
    found.add(1_000, 100.0, 105.0)
    found.add(1_000, 101.0, 110.0)
    found.log()
    assert reports == [
        (1_000, 4_000, "1,000 rows were finished before"),
        (0, 4_000, "loading the model"),
        (1_000, 4_000, "1,000 rows, 200 rows/s, 0:15 left"),
        (2_000, 4_000, "2,000 rows, 200 rows/s, 0:10 left"),
    ]
    assert metrics == [{"rows_per_second": 200.0, "start_seconds": 10.0, "rows_computed": 2_000.0}]
    assert [clock(seconds) for seconds in (0.4, 59.6, 61, 3_599, 3_600)] == [
        "0:00",
        "1:00",
        "1:01",
        "59:59",
        "1:00:00",
    ]


def test_what_cannot_be_predicted(make_context: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with pytest.raises(ParamsError) as told:
        predict.fn(make_context("predict"), Dataset(rows=1), PredictParams())
    assert str(told.value) == "setting model got nothing; set a model folder, or models:/NAME@champion"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    data = Dataset(uri=str(tmp_path), rows=0)
    with pytest.raises(DataError) as empty:
        text_rows(data, inputs_of(()))
    assert str(empty.value) == "the dataset has no rows; wanted at least one; use a dataset with texts"
    columns = (Column(name="title", stored="input.title"), Column(name="price", kind="number", stored="input.price"))
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError) as absent:
        text_rows(data.model_copy(update={"rows": 1}), columns)
    fix = "read it with -s read.inputs=title,price"
    assert str(absent.value) == f"the model's input column title is not in the dataset; {fix}"


def test_workers_that_died() -> None:
    from ray.exceptions import RayActorError

    found = worker_error(RayActorError())
    assert isinstance(found, Unavailable)
    assert str(found) == "the prediction workers crashed; run the same command again"
    assert isinstance(worker_error(ValueError("x")), ValueError)
