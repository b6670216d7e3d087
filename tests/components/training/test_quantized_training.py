"""Adapters on a base in 4 bits: they learn, resume in the same bits, and are merged into the base as it is stored."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.core.labels import LabelKind
from raypath.components.models.adapters import base_identity, is_adapter, open_model
from raypath.components.models.base_models import weights_digest
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.models.trainable import quantized
from raypath.components.tasks.catalog import load_task
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import Training, start_training
from raypath.components.training.params import ResolvedParams
from raypath.components.training.runtime import memory
from tests.tiny import LABELS, rows
from tests.tiny_decoders import answers, decoder_folder

SETTINGS = {
    **{"task": "text_generation", "epochs": 2, "lr": 3e-3, "batch_tokens": 256, "patience": 0, "frozen_layers": -1},
    **{"memory": "full", "precision": "bf16", "lora": 4, "load_in_4bit": True},
}
TWO = {"epochs": 2, "lr": 1e-2}
"""A validation pass between two epochs: it must not change how matrices are kept."""
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None or importlib.util.find_spec("peft") is None,
    reason="extra qlora is not installed",
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("decoder"), hidden_size=64, intermediate_size=128)


def _training(folder: Path, scratch: Path | None = None, base: str | None = None, **changes: Any) -> Training:
    params = ResolvedParams().override(SETTINGS | changes)
    named = {"base": str(folder) if base is None else base, "label_kind": LabelKind.NONE, "max_length": 64}
    task = load_task(ModelMetadata(task="text_generation", labels=(), **named))
    return start_training(TrainingJob(task, folder, answers(120), answers(30, seed=1), params, 3, 1, scratch=scratch))


def _losses(training: Training) -> list[float]:
    found: list[float] = []
    training.job.on_step = lambda step, steps, metrics: found.append(metrics["loss"])
    training.run()
    return found


@needs_bitsandbytes
@pytest.mark.parametrize("changes", [{}, {"dora": True, "gradient_checkpointing": True}])
def test_it_learns_and_only_adapters_are_stored(decoder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    training = _training(decoder, **TWO, **changes)
    facts = training.facts()
    matrices = quantized.quantizable(open_model(decoder))
    assert facts["weights_in_4bit"] == sum(layer.weight.numel() for layer in matrices.values()) > 0
    packed = next(module for module in training.model.modules() if type(module).__name__ == "Linear4bit")
    assert packed.weight.dtype == torch.uint8
    assert packed.weight.quant_state.nested
    assert packed.compute_dtype == torch.bfloat16
    found = _losses(training)
    assert found[-1] < found[0] - 0.2
    assert found == pytest.approx(_losses(_training(decoder, **TWO, **changes, load_in_4bit=False)), abs=0.04)
    training.prepared.save(tmp_path)
    assert is_adapter(tmp_path)
    write_metadata(tmp_path, training.task.metadata.model_copy(update=base_identity(decoder)))
    opened = open_model(tmp_path)
    assert not any("lora_" in name for name, _ in opened.named_parameters())
    name = "model.layers.0.mlp.down_proj"
    change = opened.get_submodule(name).weight - open_model(decoder).get_submodule(name).weight
    assert 0 < int(torch.linalg.matrix_rank(change, atol=1e-5)) <= 4 or changes.get("dora")
    assert base_identity(decoder) == {"base_digest": weights_digest(decoder)}


@needs_bitsandbytes
def test_without_a_base_that_can_be_named_the_stored_one_is_merged_into(decoder: Path, tmp_path: Path) -> None:
    training = _training(decoder, base=f"{decoder}, then text_generation")
    training.run()
    training.prepared.save(tmp_path)
    assert not is_adapter(tmp_path)
    plain = _training(decoder, load_in_4bit=False, precision="fp32")
    for name, weight in plain.prepared.trained().items():
        weight.data.copy_(training.prepared.trained()[name])
    ids = torch.tensor([[1, 5, 11, 12, 4]])
    with torch.no_grad():
        wanted, found = (model.eval()(input_ids=ids).logits for model in (_own(plain), open_model(tmp_path)))
    assert torch.allclose(wanted, found, atol=1e-4)


def _own(training: Training) -> Any:
    """The model without packed attention, for a batch as transformers takes it."""
    from raypath.components.models.decoder.fast_layers import use_own_layers

    training.model.set_attn_implementation("eager")
    use_own_layers(list(training.model.modules()))
    return training.model


@needs_bitsandbytes
def test_an_interrupted_training_ends_in_the_same_bits(decoder: Path, tmp_path: Path) -> None:
    whole = _training(decoder, tmp_path / "a", lora_dropout=0.1)
    whole.run()
    first = _training(decoder, tmp_path / "b", lora_dropout=0.1, checkpoint_seconds=1e-6)

    def stop(step: int, steps: int, metrics: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    first.job.on_step = stop
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = _training(decoder, tmp_path / "b", lora_dropout=0.1)
    assert second.resume_point is not None
    second.run()
    assert second.prepared.memory_plan.load_in_4bit
    wanted = whole.prepared.trained()
    assert all(torch.equal(weight, wanted[name]) for name, weight in second.prepared.trained().items())


@needs_bitsandbytes
def test_gradients_are_those_of_the_matrices_as_they_are_in_4_bits(decoder: Path) -> None:
    """The layer's product, forward and backward, is that of the matrix that its 4 bits stand for."""
    from bitsandbytes.functional import dequantize_4bit

    model = open_model(decoder)
    stored = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    quantized.quantize(model, "cpu", torch.float32)
    layer = model.model.layers[0].mlp.up_proj
    dense = dequantize_4bit(layer.weight, layer.weight.quant_state)
    assert 0.05 < float((dense - stored).abs().mean() / stored.abs().mean()) < 0.12, "9% for normal weights in NF4"
    x = torch.randn(7, 64, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert torch.allclose(out, x @ dense.T, atol=1e-5)
    assert torch.allclose(x.grad, dense.sum(0).expand(7, -1), atol=1e-5)
    assert type(model.lm_head) is torch.nn.Linear, "the head stays"


@needs_bitsandbytes
def test_a_base_without_linear_layers_is_told(tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path, "gpt2")
    with pytest.raises(
        DataError, match=r"this gpt2 has no linear layers that can be kept in 4 bits; set finetune\.load_in_4bit=false"
    ):
        _training(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": 0}, "trains adapters, and finetune.lora is 0; set finetune.lora=16"),
        ({"shard": True}, "does not work with finetune.shard"),
    ],
)
def test_settings_that_do_not_go_with_it_are_told(decoder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        _training(decoder, **changes)


def test_another_task_is_told(base: Path) -> None:
    task = load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=64))
    params = ResolvedParams().override({"lora": 4, "load_in_4bit": True})
    with pytest.raises(ParamsError, match="is for the tasks text_generation and preference"):
        start_training(TrainingJob(task, base, rows(20), rows(20), params, 3, 1))


def test_a_missing_package_is_told(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ParamsError, match=r"needs the Python package bitsandbytes; pip install 'raypath\[qlora\]'"):
        _training(decoder)


@needs_bitsandbytes
def test_memory_takes_4_bits_where_nothing_else_fits(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = open_model(decoder), ResolvedParams(batch_tokens=512, frozen_layers=-1)
    monkeypatch.setattr(memory, "LORA_RANK", 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # on a CPU the stored base is in memory first
    adapters, four = (memory.MemoryPlan(512, True, 1, load_in_4bit=four) for four in (False, True))
    needs = [memory.estimate(model, plan, False, 64, packed=True) for plan in (adapters, four)]
    matrices = sum(layer.weight.numel() for layer in quantized.quantizable(model).values())
    assert needs[0] - needs[1] == pytest.approx(matrices * (4 - 0.516), rel=1e-3)
    monkeypatch.setattr(memory, "free_bytes", lambda: (needs[1] + 1) / memory.SPARE)
    found = memory.plan_memory(model, params, 64, False, 1, packed=True)
    assert found.load_in_4bit
    assert found.summary.endswith("activation checkpointing, LoRA of rank 1, the base in 4 bits")
    monkeypatch.setattr(memory, "is_installed", lambda: False)
    with pytest.raises(DataError, match=r"pip install 'raypath\[qlora\]', with which it fits"):
        memory.plan_memory(model, params, 64, False, 1, packed=True)
