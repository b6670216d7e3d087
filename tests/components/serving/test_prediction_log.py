"""What was predicted, in files: what is in them, who may read them, and what happens when there is no room."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.serving.model_versions import LoadedModel
from raypath.components.serving.observability.prediction_log import ABANDONED_SECONDS, PredictionLog, sweep
from raypath.components.serving.replica.loader import open_version
from tests.tiny_classifier import tiny_classifier

TEXTS = ["tea, lovely", "broken cup 💔"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return open_version(Path(tiny_classifier(tmp_path_factory.mktemp("m") / "m").uri), "m/odd", 3, threads=1)


def decoded(model: LoadedModel, texts: list[str]) -> Any:
    return model.task.decode(model.engine.record(model.tokenizer.encode(texts)))


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("[0-9]*.parquet")))


def test_a_file_tells_who_predicted_what_and_how_fast_and_no_text(model: LoadedModel, tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    log = PredictionLog(tmp_path / "p", "m-7", count=lambda what, rows: told.append((what, rows)))
    answers, before = decoded(model, TEXTS), time.time()
    log.add(model, answers, TEXTS, id="a.1", role="canary", ms=12.5)
    log.add(model, answers[:1], TEXTS[:1], id="a.2")
    after = time.time()
    assert log.close()
    rows = read(tmp_path / "p").to_pylist()
    wanted = model.task.columns(answers)
    assert [row["request_id"] for row in rows] == ["a.1", "a.1", "a.2"]
    assert [row["text_index"] for row in rows] == [0, 1, 0]
    assert [row["predicted"] for row in rows] == [*wanted["predicted"].to_pylist(), wanted["predicted"][0].as_py()]
    assert rows[1]["scores"] == pytest.approx(answers[1].tolist())
    assert [(row["model"], row["version"], row["role"]) for row in rows][1:] == [
        ("m/odd", 3, "canary"),
        ("m/odd", 3, "main"),
    ]
    assert rows[0]["latency_ms"] == 12.5
    assert before - 1 < rows[0]["time"].timestamp() <= after
    assert told == [("logged", 3)]
    (path,) = (tmp_path / "p").iterdir()
    assert path.name.split(".")[1:3] == ["m-odd", "v3"]
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "text" not in rows[0]
    assert b"lovely" not in path.read_bytes()


def test_texts_are_kept_where_that_was_asked_for(model: LoadedModel, tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, "m", texts=True)
    log.add(model, decoded(model, TEXTS), TEXTS)
    assert log.close()
    assert read(tmp_path)["text"].to_pylist() == TEXTS


def test_every_task_and_version_has_files_of_its_own(model: LoadedModel, tmp_path: Path) -> None:
    kinds = [("s", ("red", "green"), "set"), ("n", ("price",), "number")]
    models = [model, replace(model, version=4)]
    for name, labels, kind in kinds:
        made = tiny_classifier(tmp_path / name, labels, kind)
        models.append(open_version(Path(made.uri), name, 1, threads=1))
    log = PredictionLog(tmp_path / "p", "m")
    for each in models:
        log.add(each, decoded(each, TEXTS), TEXTS)
    assert log.close()
    found = {
        path.name.split(".")[1] + path.name.split(".")[2]: pq.read_table(path) for path in (tmp_path / "p").iterdir()
    }
    assert {name: len(rows) for name, rows in found.items()} == {"m-oddv3": 2, "m-oddv4": 2, "sv1": 2, "nv1": 2}
    assert found["sv1"]["predicted"].type == pa.list_(pa.string())
    assert pa.types.is_floating(found["nv1"]["predicted"].type)


def test_a_share_is_drawn(model: LoadedModel, tmp_path: Path) -> None:
    answers = decoded(model, TEXTS[:1])
    log, none = PredictionLog(tmp_path, "m", share=0.3), PredictionLog(tmp_path / "none", "m", share=0.0)
    for _ in range(2_000):
        log.add(model, answers, TEXTS[:1])
        none.add(model, answers, TEXTS[:1])
    assert log.close()
    assert none.close()
    assert 450 < log.logged < 750
    assert not (tmp_path / "none").exists()


def test_beyond_its_room_it_drops_and_counts_and_a_disk_that_comes_back_loses_nothing(
    model: LoadedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers, told = decoded(model, TEXTS), []
    log = PredictionLog(
        tmp_path / "p", "m", texts=True, period=0.05, max_bytes=20_000, count=lambda w, n: told.append((w, n))
    )
    (tmp_path / "p").write_text("in the way")
    for _ in range(1_000):
        log.add(model, answers, TEXTS)
    assert log._size <= 20_000
    assert log.dropped > 1_900
    assert not log.flush()
    assert caplog.messages[-1] == "predictions could not be written and stay queued: File exists"
    assert log.logged == 0
    (tmp_path / "p").unlink()
    assert log.close()
    assert log.logged + log.dropped == 2_000
    assert len(read(tmp_path / "p")) == log.logged > 20
    assert sum(n for what, n in told if what == "dropped") == log.dropped
    assert all("lovely" not in record.getMessage() for record in caplog.records)
    assert any(record.levelno == logging.WARNING for record in caplog.records)


def test_a_long_name_is_cut_in_the_name_of_the_file_alone(model: LoadedModel, tmp_path: Path) -> None:
    name = "m" * 300  # beyond what a file system takes
    log = PredictionLog(tmp_path, "r" * 300)
    log.add(replace(model, name=name), decoded(model, TEXTS), TEXTS)
    assert log.close()
    assert read(tmp_path)["model"].to_pylist() == [name] * 2


def test_rows_that_make_no_table_are_not_in_the_way_of_others(model: LoadedModel, tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, "m")
    log.add(replace(model, version=4), np.zeros((2, 0), np.float32), TEXTS)
    log.add(model, decoded(model, TEXTS), TEXTS)
    assert log.close()
    assert (log.logged, log.dropped, len(read(tmp_path))) == (2, 2, 2)


@pytest.mark.timing
def test_noting_costs_microseconds(model: LoadedModel, tmp_path: Path) -> None:
    answers = decoded(model, TEXTS)
    log = PredictionLog(tmp_path, "m", texts=True, period=0.05)
    began = time.perf_counter()
    for _ in range(5_000):
        log.add(model, answers, TEXTS)
    assert (time.perf_counter() - began) / 5_000 < 500e-6
    assert log.close()


def test_the_thread_writes_by_itself(model: LoadedModel, tmp_path: Path) -> None:
    answers = decoded(model, TEXTS)
    log = PredictionLog(tmp_path, "m", texts=True, period=0.05)
    for _ in range(5_000):
        log.add(model, answers, TEXTS)
    end = time.monotonic() + 20
    while log.logged < 10_000 and time.monotonic() < end:
        time.sleep(0.02)
    assert log.logged == 10_000
    assert log.close()


def test_a_kill_leaves_whole_files_and_the_end_of_a_process_writes_what_waits(
    model: LoadedModel, tmp_path: Path
) -> None:
    code = (
        "import json, sys, time; from pathlib import Path; import numpy as np;"
        "from types import SimpleNamespace as S; import pyarrow as pa;"
        "from raypath.components.serving.observability.prediction_log import PredictionLog;"
        "task = S(columns=lambda d: {'predicted': pa.array(d[:, 0])});"
        "model = S(name='m', version=1, task=task);"
        "log = PredictionLog(Path(sys.argv[1]), 'm', period=float(sys.argv[2]));"
        "log.add(model, np.zeros((5, 1)), ['x'] * 5);"
        "exec(sys.argv[3])"
    )
    forever = "print(1, flush=True)\nwhile True: log.add(model, np.zeros((5000, 1)), ['x'] * 5000); time.sleep(0.001)"
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a"), "0.01", forever], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline()
    end = time.monotonic() + 20
    while len(list((tmp_path / "a").glob("*.parquet"))) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert len(read(tmp_path / "a")) >= 5
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b"), "60", "0"], check=True, timeout=30)
    assert len(read(tmp_path / "b")) == 5


def test_what_a_kill_left_half_written_is_removed_in_time(tmp_path: Path) -> None:
    old, new, whole = tmp_path / ".a.parquet", tmp_path / ".b.parquet", tmp_path / "2026-01-01.m.parquet"
    for path in (old, new, whole):
        path.write_text(json.dumps("x"))
    os.utime(old, (time.time() - ABANDONED_SECONDS - 5,) * 2)
    os.utime(whole, (time.time() - ABANDONED_SECONDS - 5,) * 2)
    sweep(tmp_path)
    assert not old.exists()
    assert new.exists()
    assert whole.exists()


def test_a_full_queue_does_not_try_a_broken_disk_again_at_once(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, tries = decoded(model, TEXTS), []
    log = PredictionLog(tmp_path / "p", "m", texts=True, period=0.5, max_bytes=2_000)
    (tmp_path / "p").write_text("in the way")
    flush = log.flush
    monkeypatch.setattr(log, "flush", lambda: (tries.append(time.monotonic()), flush())[1])
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        log.add(model, answers, TEXTS)
        time.sleep(0.01)
    (tmp_path / "p").unlink()
    assert log.close()
    background = tries[:-1]
    assert background
    assert all(after - before >= 0.5 for before, after in itertools.pairwise(background))
