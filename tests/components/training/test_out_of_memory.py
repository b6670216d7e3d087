"""Out of memory in a training ends it in one line with the settings that take less."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime.memory import MemoryPlan
from raypath.components.training.runtime.out_of_memory import is_out_of_memory, remedies
from tests.forks import forks
from tests.tiny_decoders import answers, decoder_folder

SETTINGS = {"task": "text_generation", "epochs": 1, "lr": 1e-3, "frozen_layers": -1, "precision": "fp32"}


def _training(folder: Path, rows: int, tokens: int) -> Training:
    metadata = ModelMetadata(task="text_generation", labels=(), label_kind=LabelKind.NONE, max_length=64)
    params = ResolvedParams().override({**SETTINGS, "batch_tokens": tokens, "memory": "full"})
    return start_training(TrainingJob(load_task(metadata), folder, answers(rows), answers(20), params, 0, 1))


def _large_step(folder: Path, note: Path) -> None:
    """Take a step of 150,000 tokens with 128 MiB of address space more than the model has."""
    training = _training(folder, 8_000, 150_000)
    have = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (have + (128 << 20), resource.RLIM_INFINITY))
    try:
        training.run()
    except DataError as error:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        note.write_text(str(error), encoding="utf-8")


def test_a_step_that_does_not_fit_is_told_with_what_takes_less(tmp_path: Path) -> None:
    folder, note = decoder_folder(tmp_path / "decoder"), tmp_path / "note"
    process = forks().Process(target=_large_step, args=(folder, note))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    found = note.read_text(encoding="utf-8")
    assert found.startswith("out of memory at epoch 1, step 1, with 150000 tokens a micro-batch; ")
    assert found.endswith(
        "free now; set one of finetune.micro_tokens=75000, which gives the same result; "
        "finetune.gradient_checkpointing=true; finetune.lora=16; finetune.load_in_4bit=true"
    )


def test_a_model_that_does_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = decoder_folder(tmp_path)

    def full(self: torch.nn.Module, device: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(DataError, match=r"out of memory when .* was opened; .*; use a smaller base, or set .*4bit"):
        _training(folder, 10, 256)


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    training = _training(decoder_folder(tmp_path), 10, 256)
    training.task.loss = lambda outputs, batch: outputs + torch.ones(2) @ torch.ones(3)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        training.run()


def test_only_failed_allocations_are_out_of_memory() -> None:
    cuda = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    assert all(map(is_out_of_memory, (MemoryError(), torch.OutOfMemoryError(), RuntimeError(cuda))))
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 60)
    assert is_out_of_memory(found.value)
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_what_is_set_already_is_not_proposed() -> None:
    params = ResolvedParams()
    assert remedies(params, MemoryPlan(512, True, 8, True), 64, True).startswith("use a smaller base")
    assert remedies(params, MemoryPlan(512, True, 8), 64, True) == "set finetune.load_in_4bit=true"
    assert remedies(params, MemoryPlan(512, True, 8), 64, False).startswith("use a smaller base")
    assert remedies(params.override({"shard": True}), MemoryPlan(512, True, 8), 64, True).startswith("use a smaller")
    assert "micro_tokens=900," in remedies(params, MemoryPlan(1024, True, 8), 900, False)
