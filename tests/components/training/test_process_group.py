"""Several processes: whole or sliced models, micro-batches, resumed with another number of workers, all one curve."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.forks import forks
from tests.tiny import LABELS, rows

SETTINGS = {"epochs": 2, "lr": 1e-3, "batch_tokens": 512, "patience": 0, "frozen_layers": -1}


def _train(rank: int, ranks: int, base: Path, place: Path, changes: dict[str, Any], steps: int) -> None:
    """One of `ranks` processes; the first one dies after `steps` steps where that is not 0."""
    import torch.distributed as dist

    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.tasks.catalog import load_task
    from raypath.components.training.job import TrainingJob
    from raypath.components.training.loop.trainer import start_training
    from raypath.components.training.params import ResolvedParams

    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{place}/meet-{steps}", rank=rank, world_size=ranks)
    losses: dict[int, float] = {}

    def note(step: int, _: int, figures: dict[str, float]) -> None:
        losses[step] = figures["loss"]
        (place / f"losses-{steps}.json").write_text(json.dumps(losses))
        if step == steps:
            os._exit(9)

    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    params = ResolvedParams().override(SETTINGS | changes)
    job = TrainingJob(
        task, base, rows(200), rows(40, seed=1), params, seed=3, threads=1, scratch=place / "scratch", on_step=note
    )
    training = start_training(job)
    training.run()
    training.prepared.save(place / "model")
    del training  # it holds the group, whose end has to come without the GIL
    if ranks > 1:
        dist.destroy_process_group()


def _run(base: Path, place: Path, ranks: int, steps: int = 0, **changes: Any) -> dict[int, float]:
    place.mkdir(exist_ok=True)
    args = (ranks, base, place, changes, steps)
    processes = [forks().Process(target=_train, args=(rank, *args)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * ranks or steps
    return {int(k): v for k, v in json.loads((place / f"losses-{steps}.json").read_text()).items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, base: Path) -> dict[int, float]:
    return _run(base, tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.parametrize("changes", [{}, {"shard": True}, {"micro_tokens": 128}, {"shard": True, "micro_tokens": 128}])
def test_two_processes_give_the_curve_of_one(
    base: Path, alone: dict[int, float], tmp_path: Path, changes: dict[str, Any]
) -> None:
    together = _run(base, tmp_path / "two", 2, **changes)
    assert together.keys() == alone.keys()
    for step, loss in alone.items():
        assert together[step] == pytest.approx(loss, abs=1e-3)
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(tmp_path / "two" / "model")


def test_micro_batches_and_recomputing_leave_the_curve_as_it_is(
    base: Path, alone: dict[int, float], tmp_path: Path
) -> None:
    found = _run(base, tmp_path / "parts", 1, micro_tokens=128, gradient_checkpointing=True)
    assert found.keys() == alone.keys()
    for step, loss in alone.items():
        assert found[step] == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("shard", [False, True])
def test_a_run_goes_on_with_another_number_of_processes(
    base: Path, alone: dict[int, float], tmp_path: Path, shard: bool
) -> None:
    first = _run(base, tmp_path / "run", 2, steps=4, shard=shard, checkpoint_seconds=0.0)
    assert first.keys() == {1, 2, 3, 4}
    rest = _run(base, tmp_path / "run", 1)
    assert rest.keys() == set(range(4, len(alone) + 1))
    for step, loss in rest.items():
        assert loss == pytest.approx(alone[step], abs=5e-3)
