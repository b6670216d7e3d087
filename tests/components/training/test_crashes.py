"""Killed at random moments, a training ends in the very bits of one that was left alone."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.forks import forks
from tests.tiny import LABELS, rows, tiny_bert

KILLS = int(os.environ.get("RAYPATH_KILLS", "5"))
INTERVAL = 0.1
"""Seconds between two checkpoints."""
ROWS = 160
"""Work for a kill, also on a fast machine."""
EPOCHS = 3


def _train(base: Path, scratch: Path, precision: str, count: int) -> None:
    """Run to the end in this process, noting every step's time, rows and loss; then the digest of the weights."""
    import numpy as np

    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.loop.trainer import start_training
    from raypath.components.training.params import ResolvedParams

    params = ResolvedParams(
        epochs=EPOCHS, lr=1e-3, batch_tokens=128, dropout=0.1, checkpoint_seconds=INTERVAL, patience=0, memory="full"
    ).override({"precision": precision})
    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    job = TrainingJob(task, base, rows(count), rows(60, seed=1), params, seed=3, threads=1, scratch=scratch)
    job.on_step = lambda step, steps, figures: note(step, figures["loss"])
    training = start_training(job)
    order = [(epoch, chosen) for epoch, plan in enumerate(training.epochs) for chosen in plan]

    def note(step: int, loss: float) -> None:
        epoch, chosen = order[step - 1]
        line = {"step": step, "epoch": epoch, "rows": chosen.tolist(), "loss": loss, "time": time.time()}
        with open(scratch / "steps", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    training.run()
    seen = hashlib.sha256()
    for name, weight in sorted(training.model.state_dict().items()):
        seen.update(name.encode() + np.ascontiguousarray(weight.numpy()).tobytes())
    (scratch / "digest").write_text(seen.hexdigest())


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of the note file; a kill may have cut one short."""
    found = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("precision", "kills"), [("fp32", KILLS), ("bf16", max(2, KILLS // 2))])
def test_random_kills_change_no_bit_and_cost_one_interval_each(tmp_path: Path, precision: str, kills: int) -> None:
    base = tiny_bert(tmp_path / "base")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    alone = forks().Process(target=_train, args=(base, whole, precision, ROWS * kills))
    alone.start()
    alone.join()
    assert alone.exitcode == 0
    lost = _kill_often(base, cut, precision, kills)
    assert (cut / "digest").read_text() == (whole / "digest").read_text()
    steady = {line["step"]: line for line in _lines(whole / "steps")}
    done = _lines(cut / "steps")
    assert {line["loss"] - steady[line["step"]]["loss"] for line in done} == {0.0}, "also of steps that were done twice"
    # What counts is the last time a step was done; earlier ones were undone by a kill.
    final = {line["step"]: line for line in done}
    assert {n: line["loss"] for n, line in final.items()} == {n: line["loss"] for n, line in steady.items()}
    for epoch in range(EPOCHS):
        seen = Counter(row for line in final.values() if line["epoch"] == epoch for row in line["rows"])
        assert seen == Counter(range(ROWS * kills))
    seconds = sorted(work for work, _ in lost)
    print(f"lost by a kill, seconds: median {seconds[len(seconds) // 2]:.2f}, most {seconds[-1]:.2f}")
    assert len(lost) == kills
    # A checkpoint is due at the first step after an interval, which took no longer than the slowest one.
    assert all(work < INTERVAL + slowest + 0.05 for work, slowest in lost), lost


def _kill_often(base: Path, folder: Path, precision: str, kills: int) -> list[tuple[float, float]]:
    """SIGKILL processes at random moments, let the last one end. Returns what `_lost` finds of each kill."""
    rng, lost, starts = random.Random(0), [], [0]
    for number in range(kills + 1):
        process = forks().Process(target=_train, args=(base, folder, precision, ROWS * kills))
        process.start()
        end = time.time() + 60
        while number < kills and len(_lines(folder / "steps")) == starts[-1] and time.time() < end:
            time.sleep(0.01)
        if number < kills:
            time.sleep(rng.uniform(0.0, 0.35))
            assert process.is_alive(), "the training ended before it could be killed: give it more rows"
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        lines = _lines(folder / "steps")
        if len(starts) > 1:
            lost.append(_lost(lines[starts[-2] : starts[-1]], lines[starts[-1] :]))
        starts.append(len(lines))
    assert process.exitcode == 0
    return lost


def _lost(killed: list[dict[str, Any]], after: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds of work of a killed process that the next one had to do again, and of its slowest step."""
    again = [line["time"] for line in killed if after and line["step"] >= after[0]["step"]]
    steps = [late["time"] - early["time"] for early, late in pairwise(killed)]
    return again[-1] - again[0] if again else 0.0, max(steps, default=0.0)
