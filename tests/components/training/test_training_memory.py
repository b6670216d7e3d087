"""Training that fits: estimates near what is measured, a way for every amount of memory, adapters merged away."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components.core.errors import DataError
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.catalog import load_task
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime import memory
from tests.tiny import LABELS, rows


def _training(base: Path, scratch: Path | None = None, **changes: Any) -> Training:
    plain = {"epochs": 1, "lr": 1e-3, "batch_tokens": 2048, "frozen_layers": -1}
    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    params = ResolvedParams().override(plain | changes)
    return start_training(
        TrainingJob(task, base, rows(300), rows(60, seed=1), params, seed=3, threads=1, scratch=scratch)
    )


def _with(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: free / memory.SPARE)


def test_less_memory_takes_stronger_means(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = _training(base).model, ResolvedParams(batch_tokens=65_536, frozen_layers=-1)
    asked = memory.MemoryPlan(65_536, False, 0)
    ways = [
        memory.MemoryPlan(8_192, False, 0),
        memory.MemoryPlan(1_024, True, 0),
        memory.MemoryPlan(512, True, memory.LORA_RANK),
    ]
    needs = [memory.estimate(model, way, False, 64) for way in (asked, *ways)]
    assert needs == sorted(needs, reverse=True)
    _with(monkeypatch, needs[0] + 1)
    assert memory.plan_memory(model, params, 64, False, 1) == asked
    _with(monkeypatch, needs[1] + 1)
    found = memory.plan_memory(model, params, 64, False, 1)
    assert (found.micro_tokens, found.checkpointing, found.lora) == (8_192, False, 0)
    assert found.summary.endswith("are available: 8192 tokens per micro-batch")
    _with(monkeypatch, needs[3] + 1)
    found = memory.plan_memory(model, params, 64, False, 1)
    assert (found.micro_tokens, found.checkpointing, found.lora) == (512, True, memory.LORA_RANK)
    assert "activation checkpointing, LoRA of rank 8" in found.summary
    _with(monkeypatch, 1.0)
    with pytest.raises(DataError, match="GiB at least"):
        memory.plan_memory(model, params, 64, False, 1)
    assert memory.plan_memory(model, params.override({"memory": "full"}), 64, False, 1) == asked


def test_attention_that_is_written_out_counts(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4,096 tokens in rows of 64 with 2 heads, a layer keeps 4,096 * 2 * 64 scores."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    way, scores = memory.MemoryPlan(4_096, False, 0), 4_096 * 2 * 64
    plain, dropping = _training(base).model, _training(base, dropout=0.1).model

    def grows(model: Any, bf16: bool, short: int, long: int) -> float:
        """How much more a step takes where rows are shorter."""
        return memory.estimate(model, way, bf16, short) - memory.estimate(model, way, bf16, long)

    assert grows(plain, False, 64, 129) == 2 * scores * 4, "two layers; long rows go through fused attention"
    assert grows(plain, True, 512, 513) == 2 * scores * 8 * 2
    assert grows(dropping, False, 129, 64) == pytest.approx(2 * 2.5 * scores * 4 * 65 / 64)


def test_the_outputs_of_a_language_model_count(base: Path) -> None:
    """For each token one number a word of the vocabulary, and one for its gradient, in float32."""
    from raypath.components.models.base_models import build_model

    model, way = build_model("AutoModelForMaskedLM", base, (), 0.0), memory.MemoryPlan(1, False, 0)

    def activations(model: Any) -> float:
        """Bytes per token, without weights."""
        return memory.estimate(model, way, False, 64) - memory.estimate(
            model, memory.MemoryPlan(0, False, 0), False, 64
        )

    assert activations(model) - activations(_training(base).model) == 2 * model.config.vocab_size * 4


def test_slices_of_a_sharded_model_are_smaller(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, way = _training(base).model, memory.MemoryPlan(512, False, 0)
    weights = sum(weight.numel() for weight in model.parameters())
    whole, two, many = (memory.estimate(model, way, False, 64, slices) for slices in (1, 2, 64))
    assert whole - two == 10 * weights, "half of 4 bytes a weight and 16 more for one that is trained"
    assert whole - many == 16 * weights, "before it is cut the model is there as a whole"
    _with(monkeypatch, 2 * two + 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shard = ResolvedParams(shard=True, batch_tokens=512)
    assert memory.plan_memory(model, shard, 64, False, 2).summary == ""
    assert memory.plan_memory(model, shard.override({"shard": False}), 64, False, 2).summary != ""


def test_on_a_gpu_a_sharded_model_is_nowhere_whole(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, way = _training(base).model, memory.MemoryPlan(512, False, 0)
    weights = sum(weight.numel() for weight in model.parameters())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    whole, many = (memory.estimate(model, way, False, 1, slices) for slices in (1, 64))
    assert whole - many == pytest.approx(20 * weights * 63 / 64)


def test_trials_side_by_side_share_the_memory(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = _training(base).model, ResolvedParams(batch_tokens=65_536, frozen_layers=-1)
    _with(monkeypatch, memory.estimate(model, memory.MemoryPlan(65_536, False, 0), False, 64) + 1)
    assert memory.plan_memory(model, params, 64, False, 1).summary == ""
    assert memory.plan_memory(model, params, 64, False, 1, concurrent_trials=2).micro_tokens < 65_536


def test_adapters_that_are_not_installed_are_not_proposed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = _training(base).model, ResolvedParams(batch_tokens=512, frozen_layers=-1)
    _with(monkeypatch, memory.estimate(model, memory.MemoryPlan(512, True, memory.LORA_RANK), False, 64) + 1)
    assert memory.plan_memory(model, params, 64, False, 1).lora == memory.LORA_RANK
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DataError, match=r"GiB at least .*; pip install 'raypath\[lora\]', with which it fits; or"):
        memory.plan_memory(model, params, 64, False, 1)
    _with(monkeypatch, 1.0)
    with pytest.raises(DataError, match="are available; use a smaller base"):
        memory.plan_memory(model, params, 64, False, 1)


def test_what_was_decided_holds_for_the_resumed_run(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _training(base).model
    _with(monkeypatch, memory.estimate(model, memory.MemoryPlan(512, False, 0), False, 40) + 1)
    first = _training(base, tmp_path).prepared.memory_plan
    assert first.micro_tokens == 512
    assert json.loads((tmp_path / "memory.json").read_text()) == dataclasses.asdict(first)
    _with(monkeypatch, 1e12)
    assert _training(base, tmp_path).prepared.memory_plan == first


def test_adapters_learn_and_leave_an_ordinary_folder(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="extra lora is not installed")
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    training = _training(base, lora=4, epochs=6, lr=5e-3, batch_tokens=512)
    names = training.prepared.trained()
    assert all("lora_" in name or "classifier" in name or "pooler" in name for name in names)
    metrics = training.run()
    assert metrics["accuracy"] > 0.8
    logits = training.predict(training.job.valid)
    training.prepared.save(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in saved)
    assert saved.keys() == AutoModelForSequenceClassification.from_pretrained(tmp_path).state_dict().keys()
    assert not torch.equal(
        saved["bert.encoder.layer.0.attention.self.query.weight"],
        load_file(base / "model.safetensors")["encoder.layer.0.attention.self.query.weight"],
    )
    merged = training.predict(training.job.valid)
    assert abs(merged - logits).max() < 1e-4


def test_the_peak_of_a_run_is_measured(base: Path) -> None:
    memory.reset_peak()
    before = memory.peaks()["memory/peak_rss_mib"]
    block = torch.ones(64 << 18)  # 64 MiB
    after = memory.peaks()["memory/peak_rss_mib"]
    assert 60 <= after - before <= 80
    del block
    assert memory.peaks()["memory/peak_rss_mib"] >= after - 1


def test_a_profile_is_written_when_asked_for(base: Path, tmp_path: Path) -> None:
    training = _training(base, tmp_path, profile=2, batch_tokens=256)
    files: list[Path] = []
    training.job.on_profile = files.append
    training.run()
    assert [path.name for path in files] == ["trace.json.gz", "profile.txt"]
    assert "aten::addmm" in files[1].read_text()
