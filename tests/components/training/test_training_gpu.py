"""Training on a GPU: the course of the CPU, checkpoints, memory that is measured and planned with, groups by nccl."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime import memory
from raypath.components.training.runtime import process_group as group
from tests.tiny import LABELS, rows, tiny_bert

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SETTINGS = {"epochs": 2, "lr": 1e-3, "batch_tokens": 512, "patience": 0, "frozen_layers": -1, "precision": "fp32"}


def _training(base: Path, scratch: Path | None = None, stop: int = 0, **changes: Any) -> tuple[Training, list[float]]:
    """A training, and where its losses are noted; it is interrupted after `stop` steps where that is not 0."""
    losses: list[float] = []

    def note(step: int, steps: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        if step == stop:
            raise KeyboardInterrupt

    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    params = ResolvedParams().override(SETTINGS | changes)
    job = TrainingJob(task, base, rows(200), rows(40, seed=1), params, seed=3, threads=1, scratch=scratch, on_step=note)
    return start_training(job), losses


@pytest.mark.parametrize("changes", [{}, {"micro_tokens": 128}, {"gradient_checkpointing": True}])
def test_the_curve_is_that_of_the_cpu(base: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    on_gpu, found = _training(base, **changes)
    assert on_gpu.facts()["device"] == "cuda"
    metrics = on_gpu.run()
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        on_cpu, wanted = _training(base, **changes)
        assert on_cpu.facts()["device"] == "cpu"
        assert on_cpu.run()["accuracy"] == pytest.approx(metrics["accuracy"], abs=0.03)
    assert found == pytest.approx(wanted, abs=1e-3)


def test_in_bf16_the_curve_is_near(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYPATH_PRECISION")
    (rounded, found), (exact, wanted) = _training(base, precision="auto"), _training(base)
    assert (rounded.facts()["precision"], exact.facts()["precision"]) == ("bf16", "fp32")
    rounded.run()
    exact.run()
    assert found != wanted
    assert found == pytest.approx(wanted, abs=0.05)


def test_it_goes_on_from_its_checkpoint(base: Path, tmp_path: Path) -> None:
    whole, wanted = _training(base)
    metrics = whole.run()
    first, early = _training(base, tmp_path / "scratch", stop=5, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second, late = _training(base, tmp_path / "scratch", checkpoint_seconds=0.0)
    assert second.run()["accuracy"] == pytest.approx(metrics["accuracy"], abs=0.03)
    # An interrupted step is done again.
    assert len(early) == 5
    assert early[:4] + late == pytest.approx(wanted, abs=1e-3)


def test_a_loss_that_is_no_number_names_the_step_and_spares_the_checkpoints(base: Path, tmp_path: Path) -> None:
    from raypath.components.core.errors import DataError

    training, losses = _training(base, tmp_path / "scratch", lr=1.0, head_factor=1000.0, clip=1e9, epochs=50)
    with torch.no_grad():
        weight = training.model.classifier.weight
    spoil = training.job.on_step

    def note(step: int, steps: int, figures: dict[str, float]) -> None:
        spoil(step, steps, figures)
        if step == 4:
            with torch.no_grad():
                weight.fill_(float("nan"))

    training.job.on_step = note
    with pytest.raises(DataError, match="step"):
        training.run()
    assert all(loss == loss for loss in losses), "a step without a number is not told as done"


def test_device_memory_is_measured(base: Path) -> None:
    training, _ = _training(base, epochs=1)
    training.run()
    held = sum(weight.numel() * 4 for weight in training.model.parameters()) / (1 << 20)
    assert memory.peaks()["memory/peak_device_mib"] > 3 * held, "weights, gradients and AdamW's moments"


@pytest.fixture
def little_room() -> Iterator[tuple[int, float]]:
    """A GPU of which another tensor has taken all but a gibibyte: bytes that were held before, and that are free."""
    torch.cuda.empty_cache()
    taken = torch.empty(int(torch.cuda.mem_get_info()[0] - (1 << 30)), dtype=torch.uint8, device="cuda")
    yield torch.cuda.memory_allocated(), float(torch.cuda.mem_get_info()[0])
    del taken
    torch.cuda.empty_cache()


def test_what_does_not_fit_is_made_to_fit_and_does(tmp_path: Path, little_room: tuple[int, float]) -> None:
    """A model of 25 million weights whose step of 131,072 tokens takes several GiB."""
    from transformers import BertConfig, BertModel

    from tests.tiny import save_tokenizer

    torch.manual_seed(0)
    shape = {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4, "intermediate_size": 1024}
    BertModel(BertConfig(vocab_size=30522, max_position_embeddings=128, **shape)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    settings = {"epochs": 1, "batch_tokens": 131_072, "frozen_layers": -1, "precision": "fp32", "memory": "auto"}
    params = ResolvedParams().override(settings)
    training = start_training(TrainingJob(task, tmp_path, rows(8_000), rows(40, seed=1), params, seed=3, threads=1))
    found = training.prepared.memory_plan
    assert found.micro_tokens < 131_072
    assert "are available: " in found.summary
    training.run()
    held, free = little_room
    assert memory.peaks()["memory/peak_device_mib"] * (1 << 20) - held < free


def _sliced(place: str) -> None:
    """In a process of its own: a sliced model of a group by nccl learns, is gathered, and is cut as it was."""
    import torch.distributed as dist

    torch.cuda.set_device(0)
    dist.init_process_group("nccl", init_method=f"file://{place}/meet", rank=0, world_size=1)
    training, _ = _training(Path(place) / "base")
    model = group._sharded(training.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    batch = {k: v.cuda() for k, v in training.job.train.batch(training.epochs[0][0], 0).items()}
    before = [group.full_tensor(weight) for weight in model.parameters()]
    loss = training.task.loss(training.task.forward(model, batch), batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    after = [group.full_tensor(weight) for weight in model.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    again = [group.full_tensor(group.shard_like(w, p)) for w, p in zip(after, model.parameters(), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(after, again, strict=True))
    dist.destroy_process_group()
    os._exit(7)


def test_a_sliced_model_by_nccl(tmp_path: Path) -> None:
    import multiprocessing

    tiny_bert(tmp_path / "base")
    process = multiprocessing.get_context("spawn").Process(target=_sliced, args=(str(tmp_path),))
    process.start()
    process.join(120)
    assert process.exitcode == 7
