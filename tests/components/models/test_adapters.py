"""Adapters of a decoder: stored alone, opened merged or not, trained further; they know their base."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components.core.artifacts import Model
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.finetune import ResolvedParams, finetune
from raypath.components.models.adapters import CONFIG, WEIGHTS, is_adapter, open_model
from raypath.components.models.base_models import weights_digest
from raypath.components.models.metadata import METADATA_FILE, read_metadata
from tests.tiny_decoders import decoder_folder, write_answers

pytest.importorskip("peft", reason="extra lora is not installed")

IDS = torch.tensor([[3, 11, 12, 13, 4]])


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture
def train(decoder: Path, tmp_path: Path, make_context: Any) -> Callable[..., tuple[Model, Path]]:
    splits = write_answers(tmp_path / "train", decoder, 120, 0), write_answers(tmp_path / "valid", decoder, 30, 1)

    def run(name: str, start: Model | None = None, **changes: Any) -> tuple[Model, Path]:
        settings = {"task": "text_generation", "base": str(decoder), "epochs": 2, "lr": 1e-2, "batch_tokens": 256}
        params = ResolvedParams(frozen_layers=-1, threads=1, precision="fp32").override(settings | changes)
        ctx = make_context(name)
        return finetune.fn(ctx, *splits, None, params, start).finalized(str(ctx.out), "0" * 64), ctx.out

    return run


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def _apart(model: Any, folder: Path) -> Any:
    """Adapters beside the matrices of their base, by peft, which uses names that transformers has given up."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(model, folder)


@pytest.mark.parametrize("changes", [{}, {"dora": True, "lora_dropout": 0.1}, {"rslora": True, "lora_alpha": 4}])
def test_adapters_are_stored_alone_and_open_merged_or_not(train: Any, decoder: Path, changes: dict[str, Any]) -> None:
    model, folder = train("adapters", lora=4, **changes)
    assert is_adapter(folder)
    assert not list(folder.glob("model*.safetensors"))
    assert (folder / WEIGHTS).stat().st_size < (decoder / "model.safetensors").stat().st_size
    metadata = read_metadata(folder)
    assert (metadata.base, metadata.base_digest) == (str(decoder), weights_digest(decoder))
    merged, apart, plain = open_model(folder), open_model(folder, merged=False), open_model(decoder)
    assert type(merged) is type(plain)
    torch.testing.assert_close(_logits(merged), _logits(apart), atol=1e-5, rtol=1e-4)
    assert (_logits(merged) - _logits(plain)).abs().max() > 0.1, "they have learned"
    assert 0 < model.metrics["loss"] < 4.4


def test_peft_opens_them_on_its_own(train: Any, decoder: Path) -> None:
    _, folder = train("adapters", lora=4)
    config = json.loads((folder / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8, "CAUSAL_LM")
    assert not any("lm_head" in name for name in config["target_modules"])
    found = _apart(open_model(decoder), folder)
    torch.testing.assert_close(_logits(found), _logits(open_model(folder)), atol=1e-5, rtol=1e-4)


def test_training_further_keeps_the_base_and_begins_where_they_ended(train: Any, decoder: Path) -> None:
    first, before = train("first", lora=4)
    again, after = train("again", start=first, lora=4, lr=1e-9, epochs=1)
    assert is_adapter(after)
    assert read_metadata(after).base == str(decoder)
    torch.testing.assert_close(_logits(open_model(after)), _logits(open_model(before)), atol=1e-4, rtol=1e-3)
    assert again.metrics["loss"] == pytest.approx(first.metrics["loss"], abs=1e-4)


def test_without_lora_the_merged_model_is_trained_in_full(train: Any) -> None:
    first, before = train("first", lora=4)
    _, after = train("whole", start=first, lr=1e-9, epochs=1)
    assert not is_adapter(after)
    torch.testing.assert_close(_logits(open_model(after)), _logits(open_model(before)), atol=1e-4, rtol=1e-3)


def test_adapters_of_another_rank_are_not_trained_further(train: Any) -> None:
    first, _ = train("first", lora=4)
    with pytest.raises(ParamsError, match=r"have rank 4 and alpha 8; set finetune\.lora=4, lora_alpha=8"):
        train("again", start=first, lora=8)


@pytest.mark.parametrize(("before", "now"), [(-1, 1), (1, -1)], ids=["fewer", "more"])
def test_adapters_of_other_layers_are_not_trained_further(train: Any, before: int, now: int) -> None:
    first, folder = train("first", lora=4, epochs=1, frozen_layers=before)
    wanted = rf"the adapters in .*{folder.parent.name}.* are of other layers than those .* such as \S*layers\.0\."
    with pytest.raises(DataError, match=f"{wanted}.*; set finetune.frozen_layers as it was in their training"):
        train("again", start=first, lora=4, frozen_layers=now)


def test_adapters_of_another_base_are_told(train: Any, decoder: Path, tmp_path: Path) -> None:
    _, folder = train("first", lora=4)
    other = decoder_folder(tmp_path / "other", "qwen3")
    path = folder / METADATA_FILE
    path.write_text(path.read_text().replace(str(decoder), str(other)))
    with pytest.raises(DataError, match=r"were trained on another base than .*other is now; restore that base"):
        open_model(folder)
    shutil.rmtree(other)
    with pytest.raises(DataError, match="is not a folder"):
        open_model(folder)


def test_micro_batches_follow_from_the_memory_of_packed_tokens(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypath.components.training.runtime import memory
    from tests.tiny_decoders import tiny_decoder

    model, params = tiny_decoder("llama"), ResolvedParams(batch_tokens=8_192)
    need = memory.estimate(model, memory.MemoryPlan(8_192, False, 0), False, 64, packed=True)
    monkeypatch.setattr(memory, "free_bytes", lambda: 0.7 * need / memory.SPARE)
    found = memory.plan_memory(model, params, 64, False, 1, packed=True)
    assert found.micro_tokens < 8_192
    assert memory.estimate(model, found, False, 64, packed=True) <= 0.7 * need
    assert np.isfinite(need)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"dora": True}, r"finetune\.dora is a setting of adapters, and finetune\.lora is 0; set finetune\.lora=16"),
        ({"lora_alpha": 8, "rslora": True}, r"finetune\.lora_alpha is .* leave lora_alpha and rslora out"),
        (
            {"lora": 16_000},
            r"finetune\.lora=16000 is more than the full rank of every layer, \d+ at most; set finetune",
        ),
    ],
)
def test_settings_that_no_adapter_can_have(train: Any, changes: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ParamsError, match=wanted):
        train("wrong", **changes)
