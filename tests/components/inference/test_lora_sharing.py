"""Models that were fine-tuned with LoRA on one base hold its matrices once, and answer as each does merged."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypath.components.core.errors import DataError
from raypath.components.inference.backends.lora_sharing import Adapted
from raypath.components.inference.backends.openvino_export import export
from raypath.components.inference.backends.weight_sharing import WeightTable
from raypath.components.inference.engine import Engine
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.models.trainable.lora import FILE
from raypath.components.tasks.catalog import load_task
from raypath.components.training.job import TrainingJob
from raypath.components.training.loop.trainer import start_training
from raypath.components.training.params import ResolvedParams
from tests.tiny import LABELS, rows, save_tokenizer, tiny_bert

pytest.importorskip("peft", reason="extra lora is not installed")
TOKENS = [[2, 5, 6, 7, 3], [2, 9, 3], [2, 8, 8, 8, 8, 8, 3]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models with adapters, trained from one base on other rows."""
    place = tmp_path_factory.mktemp("lora")
    base, made = tiny_bert(place / "base"), []
    for seed in (1, 2):
        metadata = ModelMetadata(task="text_classification", labels=LABELS, max_length=64)
        params = ResolvedParams(lora=2, epochs=2, lr=1e-2, batch_tokens=512, memory="full")
        job = TrainingJob(load_task(metadata), base, rows(80, seed=seed), rows(20), params, seed, 1, None)
        training = start_training(job)
        training.run()
        folder = place / f"model-{seed}"
        folder.mkdir()
        training.prepared.save(folder)
        write_metadata(folder, metadata)
        save_tokenizer(folder)
        made.append(folder)
    return made


def _bases(engine: Engine) -> dict[str, Any]:
    layers = {name: layer for name, layer in engine.model.named_modules() if isinstance(layer, Adapted)}
    return {name: layer.base.weight for name, layer in layers.items()}


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_two_models_hold_one_base_and_answer_as_merged(models: list[Path], precision: Any, most: float) -> None:
    merged = [Engine(folder, precision=precision).record(TOKENS) for folder in models]
    weights = WeightTable()
    separate = [Engine(folder, precision=precision, separate_adapters=True, weights=weights) for folder in models]
    first, second = map(_bases, separate)
    assert len(first) == 12, "the linear layers of two blocks"
    assert first.keys() == second.keys()
    assert all(first[name] is second[name] for name in first)
    for engine, wanted in zip(separate, merged, strict=True):
        np.testing.assert_allclose(engine.record(TOKENS), wanted, atol=most)
    assert not np.allclose(*merged, atol=10 * most)


def test_the_base_is_the_one_they_were_trained_from(models: list[Path]) -> None:
    from safetensors.torch import load_file

    base = load_file(models[0].parent / "base" / "model.safetensors")
    for name, weight in _bases(Engine(models[1], precision="fp32", separate_adapters=True)).items():
        stored = base.get(f"{name}.weight", base.get(f"{name}.weight".removeprefix("bert.")))
        np.testing.assert_allclose(weight.numpy(), stored.numpy(), atol=1e-6)


def test_openvino_has_merged_adapters(models: list[Path], tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    wanted = Engine(models[0], precision="fp32", separate_adapters=True)
    export(models[0], wanted.task, tmp_path)
    shutil.copytree(models[0], tmp_path, dirs_exist_ok=True)
    found = Engine(tmp_path, precision="openvino", separate_adapters=True).record(TOKENS)
    exact = wanted.record(TOKENS)
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_a_file_that_does_not_fit_is_named(models: list[Path], tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(models[0], broken)
    (broken / FILE).write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"adapter\.lora does not fit its model"):
        Engine(broken, precision="fp32", separate_adapters=True)
