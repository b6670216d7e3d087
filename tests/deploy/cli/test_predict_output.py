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
from raypath.deploy.cli import predict
from raypath.deploy.cli.predict import predict_file, write


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
        monkeypatch.setattr(predict, "_version", lambda *_, metadata=metadata: ("models:/m/3", metadata, tmp_path))
        out = tmp_path / f"out-{several}.csv"
        assert predict.predict_file(tmp_path, "m", "a.csv", out, ["predict.batch=64"]) == f"3 predictions in {out}"
        assert out.read_text() == "3"
    plain, wide = ran
    assert (plain["read.uri"], plain["predict.model"], plain["read.label"]) == ("a.csv", "models:/m/3", None)
    assert (plain["read.text"], plain["read.inputs"], plain["predict.batch"]) == ("text", [], 64)
    assert "read.kinds.title" not in wide
    assert (wide["read.inputs"], wide["read.kinds.price"]) == (["title", "price"], "number")
