"""Encoder-decoders trained by two processes, with DDP and with FSDP2, follow the curve of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypath.components.training.loop.trainer import Training
from tests.components.training.test_text_to_text_training import _training
from tests.forks import forks
from tests.tiny_seq2seq import seq2seq_folder


def _curve(training: Training) -> list[float]:
    found: list[float] = []
    training.job.on_step = lambda step, steps, metrics: found.append(metrics["loss"])
    training.run()
    return found


def _train(rank: int, base: Path, changes: dict[str, Any], place: Path) -> None:
    """One of two processes."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    training = _training(base, **changes)
    losses, metrics = _curve(training), training.validate()
    training.prepared.save(place / "model")
    if rank == 0:
        (place / "found.json").write_text(json.dumps([losses, metrics]))
    # DDP holds the group: its end, with the GIL, would wait for a thread of gloo that waits for the GIL.
    del training
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("t5", {}), ("t5", {"shard": True}), ("bart", {"shard": True}), ("marian", {"lora": 4, "lr": 1e-2})],
)
def test_two_processes_give_the_curve_of_one(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    base = seq2seq_folder(tmp_path / "base", kind)
    changes = {"epochs": 3, **changes}
    alone = _training(base, **{**changes, "shard": False})
    curve, place = _curve(alone), tmp_path / "two"
    place.mkdir()
    processes = [forks().Process(target=_train, args=(rank, base, changes, place)) for rank in range(2)]
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
    names = {path.name for path in (place / "model").iterdir()}
    assert "model.safetensors" in names, "adapters of a base without a name are merged"
