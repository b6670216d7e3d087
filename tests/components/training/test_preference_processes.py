"""Learning from preferences with two processes, with DDP and with FSDP2, follows the curve of one; and two kills of a
training with adapters change no bit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from raypath.components.training.loop.trainer import Training
from tests.components.training.test_preference_training import Rows, _params, _rows, _training
from tests.forks import forks
from tests.tiny_decoders import decoder_folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("decoder"))


def _curve(training: Training) -> list[float]:
    found: list[float] = []
    training.job.on_step = lambda step, steps, metrics: found.append(metrics["loss"])
    training.run()
    return found


def _train(rank: int, ranks: int, base: Path, rows: Rows, changes: dict[str, Any], place: Path) -> None:
    """One of `ranks` processes."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=ranks)
    training = _training(base, rows, _params(base, **changes), None)
    losses = _curve(training)
    metrics = training.validate()
    if rank == 0:
        (place / "found.json").write_text(json.dumps([losses, metrics]))
    # DDP holds the group: its end, with the GIL, would wait for a thread of gloo that waits for the GIL.
    del training
    dist.destroy_process_group()


@pytest.mark.parametrize("changes", [{}, {"shard": True}, {"lora": 4}])
def test_two_processes_give_the_curve_of_one(
    decoder: Path, make_context: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    changes = {"objective.preference": "dpo_norm", "epochs": 2, **changes}
    rows = _rows(tmp_path, decoder, make_context, _params(decoder))
    alone = _training(decoder, rows, _params(decoder, **{**changes, "shard": False}), None)
    curve, place = _curve(alone), tmp_path / "two"
    place.mkdir()
    processes = [forks().Process(target=_train, args=(n, 2, decoder, rows, changes, place)) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    losses, metrics = json.loads((place / "found.json").read_text())
    assert len(losses) > 8
    assert losses == pytest.approx(curve, abs=1e-3)
    assert losses[-1] < 0.9 * losses[0]
    wanted = alone.validate()
    assert {name: metrics[name] for name in wanted} == pytest.approx(wanted, abs=2e-3)


def _interrupted(base: Path, rows: Rows, scratch: Path, note: Path, pause: float = 0.0) -> None:
    """Train adapters in bfloat16, a step takes `pause` seconds more; write the digest of what was trained."""
    changes = {"lora": 4, "lora_dropout": 0.1, "checkpoint_seconds": 0.1, "precision": "bf16", "epochs": 4}
    training = _training(base, rows, _params(base, **changes), scratch)

    def on_step(step: int, steps: int, metrics: dict[str, float]) -> None:
        with open(note, "a", encoding="utf-8") as file:
            file.write(f"{step} {metrics['loss']}\n")
        time.sleep(pause)

    training.job.on_step = on_step
    training.run()
    seen = hashlib.sha256()
    for name, weight in sorted(training.prepared.trained().items()):
        seen.update(name.encode() + weight.detach().numpy().tobytes())
    note.with_suffix(".digest").write_text(seen.hexdigest())


def _lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_two_kills_of_a_training_of_adapters_change_no_bit(decoder: Path, make_context: Any, tmp_path: Path) -> None:
    rows = _rows(tmp_path, decoder, make_context, _params(decoder, precision="bf16"))
    whole, cut, first = tmp_path / "whole", tmp_path / "cut", []
    _interrupted(decoder, rows, tmp_path / "a", whole)
    for _ in range(2):
        process = forks().Process(target=_interrupted, args=(decoder, rows, tmp_path / "b", cut, 0.03))
        process.start()
        have, end = len(_lines(cut)), time.time() + 60
        while len(_lines(cut)) < have + 8 and process.is_alive() and time.time() < end:
            time.sleep(0.005)
        assert process.is_alive()
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        first.append(int(_lines(cut)[have][0]))
    have = len(_lines(cut))
    _interrupted(decoder, rows, tmp_path / "b", cut)
    first.append(int(_lines(cut)[have][0]))
    assert first[0] == 1
    assert 1 < first[1] < first[2], "each attempt resumed from a checkpoint of the one before"
    assert cut.with_suffix(".digest").read_text() == whole.with_suffix(".digest").read_text()
    losses = dict(_lines(whole))
    assert all(losses[step] == loss for step, loss in _lines(cut)[:-1])
