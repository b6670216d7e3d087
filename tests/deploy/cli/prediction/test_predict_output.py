"""`raypath predict -o`: an output that cannot be written is refused first, and a file is written whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components import Dataset
from raypath.components.core.columns import Column
from raypath.components.core.errors import ParamsError, StoreError
from raypath.components.models.metadata import ModelMetadata
from raypath.deploy.cli.prediction import predict
from raypath.deploy.cli.prediction.output import write
from raypath.deploy.cli.prediction.predict import predict_file


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".csv", "/proc/predictions.csv", "none/a.csv", "a.txt", "there.csv", "link.csv"]
)
def test_it_is_refused_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ParamsError, match=r"cannot be written|no folder|unknown format|exists"):
        predict_file(tmp_path / "home", "models:/m@champion", "a.csv", tmp_path / name, [])
    assert sorted(tmp_path.iterdir()) == before, "nothing was started, and no file is left"


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".csv", '"text","labels","input.text"\n"one","a|b","x"\n"two","","y"\n'),
        (
            ".jsonl",
            '{"text": "one", "labels": ["a", "b"], "input.text": "x"}\n'
            '{"text": "two", "labels": [], "input.text": "y"}\n',
        ),
    ],
)
def test_rows_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, text: str
) -> None:
    rows = {"text": ["one", "two"], "labels": [["a", "b"], []], "input.text": ["x", "y"]}
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "rows" / "a.parquet", row_group_size=1)
    result, target = Dataset(uri=str(tmp_path / "rows"), rows=2), tmp_path / f"out{suffix}"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for before in (["rows"], [target.name, "rows"]):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match=rf"no space left for .*out\{suffix}; free disk space, then run"):
                write(result, target)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        write(result, target)
        assert target.read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == [target.name, "rows"]


def test_the_workflow_of_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (
        Column(name="title", stored="input.title"),
        Column(name="price", kind="number", stored="input.price"),
    )
    ran: list[Any] = []

    def run_graph(graph: Any, home: Path) -> Any:
        ran.append(graph.params.flat())
        return Dataset(rows=3), None, 0.0

    monkeypatch.setattr(predict, "run_graph", run_graph)
    monkeypatch.setattr(predict, "open_store", lambda home: SimpleNamespace(local=lambda data: data))
    monkeypatch.setattr(predict, "write", lambda data, target: target.write_text(str(data.rows)))
    for several in (False, True):
        metadata = ModelMetadata(
            task="text_classification", labels=("a", "b"), max_length=8, columns=columns if several else ()
        )
        monkeypatch.setattr(predict, "_version", lambda *_, metadata=metadata: ("models:/m/3", metadata))
        out = tmp_path / f"out-{several}.csv"
        assert predict.predict_file(tmp_path, "m", "a.csv", out, ["predict.batch=64"]) == f"3 predictions in {out}"
        assert out.read_text() == "3"
    plain, wide = ran
    assert (plain["read.uri"], plain["predict.model"], plain["read.label"]) == ("a.csv", "models:/m/3", None)
    assert (plain["read.text"], plain["read.inputs"], plain["predict.batch"]) == ("text", [], 64)
    assert "read.kinds.title" not in wide
    assert (wide["read.inputs"], wide["read.kinds.price"]) == (["title", "price"], "number")


def test_the_workflow_of_a_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []

    def run_graph(graph: Any, home: Path) -> Any:
        ran.append(graph.params.flat())
        return Dataset(uri=str(tmp_path / "made"), rows=2), None, 0.0

    rows = {"row": [1, 2], "record": ['{"prompt": "a", "id": 7}', '{"prompt": "b"}'], "answer": ["é", None]}
    more = {
        "finish_reason": ["stop", None],
        "prompt_tokens": [1, None],
        "answer_tokens": [1, None],
        "error": ["", "no"],
    }
    (tmp_path / "made").mkdir()
    pq.write_table(pa.table({**rows, **more, "error": ["", "no"]}), tmp_path / "made" / "responses-00000.parquet")
    metadata = ModelMetadata(task="text_generation", labels=(), max_length=8)
    monkeypatch.setattr(predict, "run_graph", run_graph)
    monkeypatch.setattr(predict, "open_store", lambda home: SimpleNamespace(local=lambda data: data))
    monkeypatch.setattr(predict, "_version", lambda *_: ("models:/m/3", metadata))
    monkeypatch.chdir(tmp_path)
    Path("in.predictions.csv").touch()  # of a classifier
    wanted = "2 responses in in.predictions.jsonl, 1 of them without an answer"
    assert predict_file(tmp_path, "m", "in.jsonl", None, ["generate.seed=3"]) == wanted
    assert Path("in.predictions.jsonl").read_text(encoding="utf-8").splitlines() == [
        '{"prompt": "a", "id": 7, "answer": "é", "finish_reason": "stop"}',
        '{"prompt": "b", "answer": null, "finish_reason": null, "error": "no"}',
    ]
    assert (ran[0]["read.uri"], ran[0]["generate.model"], ran[0]["generate.seed"]) == ("in.jsonl", "models:/m/3", 3)
    with pytest.raises(ParamsError, match=r"in\.predictions\.jsonl exists"):
        predict_file(tmp_path, "m", "in.jsonl", None, [])
    with pytest.raises(ParamsError, match=r"out\.csv: responses have no such format; end it in \.jsonl or \.parquet"):
        predict_file(tmp_path, "m", "in.jsonl", Path("out.csv"), [])
    with pytest.raises(ParamsError, match="warmth"):
        predict_file(tmp_path, "m", "in.jsonl", Path("out.jsonl"), ["generate.warmth=1"])
    assert len(ran) == 1
