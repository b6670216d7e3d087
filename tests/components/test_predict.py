"""Batch prediction by Ray Data."""

import dataclasses
import json
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypath.components import DataError, ParamsError
from raypath.components.inference.batch.running import Throughput, clock
from raypath.components.inference.engine import Engine
from raypath.components.predict import FEW_ROWS, PredictParams, _actors, predict
from tests.components.test_finetune import Notes
from tests.tiny_classifier import LABELS, texts, tiny_classifier, tiny_dataset


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data") / "all", model, rows=300)


def test_rows_come_out_in_order_with_the_models_answers(ray_head, model, data, make_context) -> None:
    ctx = make_context("predict")
    made = predict.fn(ctx, data, PredictParams(model=model.uri, batch=64, scores=True))
    assert (made.rows, made.labels, made.label_kind, made.uri) == (300, LABELS, "string", "")
    assert [p.name for p in ctx.out.iterdir()] == ["predictions-00000.parquet"]
    rows = pq.read_table(ctx.out)
    assert rows.column_names == ["row", "text", "label", "predicted", "score", "scores"]
    assert rows["row"].to_pylist() == list(range(1, 301))
    assert rows["text"].to_pylist() == texts(300)
    tokens = pq.read_table(data.uri)["input_ids"].to_pylist()
    engine = Engine(Path(model.uri))
    wanted = engine.task.decode(engine.record(tokens))
    assert rows["predicted"].to_pylist() == [LABELS[k] for k in wanted.argmax(axis=1)]
    np.testing.assert_allclose(rows["scores"].to_pylist(), wanted, atol=1e-5)
    np.testing.assert_allclose(rows["score"].to_pylist(), wanted.max(axis=1), atol=1e-5)


@pytest.fixture(scope="module")
def many(model, tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data") / "many", model, rows=3_000)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def test_workers_of_ray_a_killed_one_and_a_damaged_part_give_the_same_bytes(
    ray_head, model, many, make_context
) -> None:
    """Two workers, one is killed while it works. Then one in a step that finds some parts done, one of them damaged."""
    params = PredictParams(model=model.uri, batch=256, actors=2)
    ctx = make_context("predict")
    parts = ctx.scratch / "chunks"
    killer = threading.Thread(target=_kill_a_worker, args=(parts,))
    killer.start()
    predict.fn(ctx, many, params)
    killer.join()
    assert killed, "no worker was killed"
    assert pq.read_table(ctx.out)["text"].to_pylist() == texts(3_000)
    wanted = _bytes(ctx.out)

    done = sorted(parts.glob("*.parquet"))
    for path in done[::2]:
        path.unlink()
    done[1].write_bytes(done[1].read_bytes()[:-1])
    kept = {path.name: path.stat().st_mtime_ns for path in done[3::2]}
    again = dataclasses.replace(make_context("predict"), scratch=ctx.scratch)
    predict.fn(again, many, params.override({"actors": 1}))
    assert _bytes(again.out) == wanted
    assert {name: (parts / name).stat().st_mtime_ns for name in kept} == kept


killed: list[int] = []


def _kill_a_worker(parts: Path) -> None:
    """SIGKILL one of the processes that predict, once the first part is done."""
    import psutil

    end = time.monotonic() + 60
    while time.monotonic() < end and not list(parts.glob("*.parquet")):
        time.sleep(0.005)
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if line.startswith("ray::") and "Predictor" in line:
            process.kill()
            killed.append(process.pid)
            return


def test_as_many_workers_as_memory_and_cores_allow(model, make_context, monkeypatch) -> None:
    import ray

    def actors(gibibytes: float, rows: int = 3_000, **more) -> int:
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"memory": gibibytes * 2**30})
        return _actors(make_context("predict", **more), Path(model.uri), rows, False)

    assert [actors(size) for size in (0.5, 1.5, 2.5, 64)] == [1, 1, 2, 2], "the cores are two"
    assert (actors(64, FEW_ROWS), actors(64, FEW_ROWS + 1), actors(64, gpus=3)) == (0, 2, 3)


def test_what_is_left_is_told_in_hours_minutes_and_seconds() -> None:
    assert [clock(seconds) for seconds in (0.4, 59.6, 3_725)] == ["0:00", "1:00", "1:02:05"]


def test_speed_counts_from_the_first_worker_that_is_ready(make_context, tmp_path) -> None:
    notes = Notes()
    ctx = make_context("predict", track=notes, progress=tmp_path / "progress")
    throughput = Throughput(ctx, 1_000, 100)
    throughput.log()
    assert notes.points == {}, "nothing was left to do"
    throughput.called = 50.0
    throughput.add(100, 63.0, 65.0)
    throughput.add(300, 62.0, 66.0)
    throughput.add(50, 63.0, 64.0)
    line = json.loads((tmp_path / "progress").read_text())
    assert (line["done"], line["total"], line["message"]) == (550, 1_000, "550 rows, 112 rows/s, 0:04 left")
    throughput.log()
    points = {name: values[0] for name, values in notes.points.items()}
    assert points == {"rows_per_second": 112.5, "start_seconds": 12.0, "rows_computed": 450.0}


def test_a_broken_model_in_the_workers_is_told_in_one_line(ray_head, model, data, make_context, tmp_path) -> None:
    broken = tiny_classifier(tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="does not open") as caught:
        predict.fn(make_context("predict"), data, PredictParams(model=broken.uri))
    assert "\n" not in str(caught.value)


def test_no_model_and_no_texts_are_refused_before_anything_starts(model, data, make_context, tmp_path) -> None:
    with pytest.raises(ParamsError, match="setting model got nothing"):
        predict.fn(make_context("predict"), data, PredictParams())
    with pytest.raises(DataError, match=r"no raypath\.json"):
        predict.fn(make_context("predict"), data, PredictParams(model=str(tmp_path)))
    table = pq.read_table(data.uri).drop_columns(["text"])
    (tmp_path / "bare").mkdir()
    pq.write_table(table, tmp_path / "bare" / "part.parquet")
    bare = data.model_copy(update={"uri": str(tmp_path / "bare")})
    with pytest.raises(DataError, match="input column text is not in the dataset"):
        predict.fn(make_context("predict"), bare, PredictParams(model=model.uri))


def test_an_answer_is_joined_by_the_row_of_the_source_or_an_id(model, reading, make_context, tmp_path) -> None:
    """Row 2 has no text and is dropped."""
    (tmp_path / "rows.csv").write_text('text\ntea\n""\ncup\n')
    data, rows = reading(tmp_path / "rows.csv", label=None, nulls="drop")
    assert [(row["row"], row["text"]) for row in rows] == [(1, "tea"), (3, "cup")]
    source = data.model_copy(update={"uri": str(tmp_path / "step-0" / "out")})
    ctx = make_context("predict")
    predict.fn(ctx, source, PredictParams(model=model.uri))
    assert pq.read_table(ctx.out)["row"].to_pylist() == [1, 3]
    named = pq.read_table(source.uri).drop_columns(["row"]).append_column("id", [["a7", "a9"]])
    (tmp_path / "named").mkdir()
    pq.write_table(named, tmp_path / "named" / "part-0.parquet")
    ctx = make_context("predict")
    predict.fn(ctx, data.model_copy(update={"uri": str(tmp_path / "named")}), PredictParams(model=model.uri))
    assert pq.read_table(ctx.out).column_names[:2] == ["id", "text"]
    assert pq.read_table(ctx.out)["id"].to_pylist() == ["a7", "a9"]
