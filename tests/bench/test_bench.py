"""The bench itself: every contender trains, the clock counts what it should, operations agree with torch's counter."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raypath.components.core.artifacts import Dataset
from raypath.components.models.base_models import tokenizer_digest
from raypath.components.models.encoders.fast_bert import read_first_token_only
from raypath.components.models.trainable.freezing import freeze
from tests.bench import child, tables, training
from tests.bench.clock import Clock, Enough
from tests.bench.reviews import TEXTS, Spec
from tests.bench.work import work_of
from tests.forks import forks
from tests.tiny import LABELS, rows, tiny_bert, tiny_config

TRAINER = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="the Trainer needs accelerate: pip install --group bench"
)
NAMES = [pytest.param(name, marks=TRAINER if "trainer" in name else ()) for name in training.NAMES]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """A tiny BERT and made-up rows: one step of warm-up, two that are timed."""
    folder = tmp_path_factory.mktemp("bench")
    base = tiny_bert(folder / "base")
    (folder / TEXTS).write_text(json.dumps({"texts": ["good tea", "bad tea"], "targets": [1, 0]}))
    train, valid = _part(folder / "train", base, 200), _part(folder / "valid", base, 40)
    return Spec(
        folder=str(folder), train=train, valid=valid, test=valid, base=str(base), steps=2, warmup=1, epochs=2, threads=1
    )


def _part(folder: Path, base: Path, count: int) -> Dataset:
    made = rows(count)
    ids = [made.ids[made.offsets[i] : made.offsets[i + 1]].tolist() for i in range(count)]
    folder.mkdir()
    table = pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), "target": pa.array(made.targets, pa.int32())})
    pq.write_table(table, folder / "part-0.parquet")
    return Dataset(uri=str(folder), rows=count, labels=LABELS, tokenizer=tokenizer_digest(base), max_length=64)


def _measured(job: str, name: str, spec: Spec) -> dict[str, Any]:
    """What `training.measure` finds, in a process that has its imports done; how one starts is tried by the start."""
    out = Path(spec.folder) / f"{job}-{name}.out"
    process = forks().Process(target=_measure, args=(job, name, spec, out))
    process.start()
    process.join(120)
    process.kill()
    assert process.exitcode == 0
    return dict(json.loads(out.read_text(encoding="utf-8")))


def _measure(job: str, name: str, spec: Spec, out: Path) -> None:
    os.environ.update(training._environment(spec))
    out.write_text(json.dumps(child.JOBS[job](name, spec)), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_contender_is_timed(spec: Spec, name: str) -> None:
    found = _measured("speed", name, spec)
    assert found["steps"] == 2
    assert 2 <= found["rows"] <= found["tokens"] <= found["padded"]
    assert found["seconds"] > 0
    assert found["memory"] > 1 << 26
    assert found["operations"] > 0


@pytest.mark.slow
def test_start_is_timed_from_the_process_on(spec: Spec) -> None:
    found = training.measure("start", "raypath", spec)
    assert 0 < found["seconds"] < found["process"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in training.STARTS if name != "raypath"])
def test_start_of_others_is_timed(spec: Spec, name: str) -> None:
    began = time.time()
    found = _measured("start", name, spec)
    assert 0 < found["seconds"] <= found["ended"] - began


@pytest.mark.slow
def test_quality_is_that_of_the_whole_training(spec: Spec) -> None:
    found = _measured("quality", "raypath", spec)
    assert found["rows"] == 2 * spec.train.rows
    assert 0 <= found["accuracy"] <= 1


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("frozen", [-1, 0, 1])
def test_operations_agree_with_torch(frozen: int, first_only: bool) -> None:
    """Attention by plain products, since torch counts no other on the CPU."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny_config(max_position_embeddings=128))
    freeze(model, frozen)
    assert not first_only or read_first_token_only(model)
    ids = torch.ones(4, 32, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(input_ids=ids, labels=torch.zeros(4, dtype=torch.int64)).loss.backward()
    ours = work_of(model).total(rows=4, tokens=4 * 32, pairs=4 * 32**2)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_clock_leaves_out_warm_up() -> None:
    clock = Clock(warmup=1, steps=2)
    clock.step(np.array([9, 9]))
    clock.step(np.array([3, 1]))
    with pytest.raises(Enough):
        clock.step(np.array([2]))
    found = clock.figures()
    assert {k: found[k] for k in ("steps", "rows", "tokens", "pairs", "padded")} == {
        "steps": 2, "rows": 3, "tokens": 6, "pairs": 14, "padded": 8
    }  # fmt: skip


def test_turns_begin_with_another_each_round() -> None:
    assert list(training.turns("abc", 2)) == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a")]


def test_results_stay_out_of_the_repository(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.options(["--out", str(training.ROOT / "results")])
    assert "inside the repository" in capsys.readouterr().err


def test_table_takes_ratios_within_a_round() -> None:
    def one(tokens: int) -> dict[str, float | bool]:
        whole = {"seconds": 1.0, "cpu": 2.0, "steps": 2, "rows": 4, "padded": 200, "memory": 1 << 20, "operations": 5e9}
        return {**whole, "tokens": tokens, "bf16": False}

    lines = tables.speeds({"trainer": [one(100), one(50)], "raypath": [one(200), one(100)]}, [{"fp32": 1e10}] * 2, 10.0)
    assert [line["/ trainer"] for line in lines] == [1.0, 2.0]
    assert lines[1]["samples/s"] == 15.0
    assert lines[1]["of peak"] == "50%"
    assert tables.markdown(lines).count("\n") == 3


def test_tables_of_start_up_and_quality() -> None:
    def start(seconds: float) -> dict[str, float]:
        return {"seconds": seconds, "process": seconds + 1, "memory": 1 << 20}

    lines = tables.starts({"plain": [start(2), start(4)], "raypath": [start(3), start(6)]})
    assert [line["/ plain"] for line in lines] == [1.0, 1.5]
    one = {"accuracy": 0.9, "macro_f1": 0.8, "log_loss": 0.3, "seconds": 60, "rows": 10, "steps": 2, "memory": 1 << 20}
    (line,) = tables.qualities({"raypath": [one, {**one, "accuracy": 0.7}]})
    assert line["accuracy"] == "0.800 (0.700-0.900)"
    assert line["seeds"] == 2


def test_the_table_against_trl_has_ratios_of_processor_time_and_memory() -> None:
    from tests.bench.against_trl import table

    one = {"tokens": 1_000, "seconds": 2.0, "cpu": 4.0, "memory": 4 << 20}
    fast = {"tokens": 1_000, "seconds": 1.0, "cpu": 1.0, "memory": 3 << 20}
    text = table(16, {"trl": [one, one], "raypath": [fast, fast | {"cpu": 0.5}, fast | {"cpu": 9.0}]})
    assert text.splitlines() == [
        "| LoRA 16 | tokens/s | tokens/s of CPU | peak MiB | speed / trl | memory / trl |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| trl | 500 | 250 | 4 | 1.00 | 1.00 |",
        "| raypath | 1000 | 1000 | 3 | 4.00 | 0.75 |",
    ]
