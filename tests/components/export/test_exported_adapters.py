"""Export of LoRA adapters that are stored without their base: merged, alone, and as GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import raypath
from raypath.components import DataError
from raypath.components.models.adapters import save_adapter
from raypath.components.models.base_models import weights_digest
from raypath.components.models.metadata import ModelMetadata, read_metadata, write_metadata
from tests.components.export.decoders import byte_level, decoder, logits

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft", reason="extra lora")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Adapters with random weights on a tiny base, as `finetune` leaves them."""
    import transformers

    base, folder = decoder(tmp_path / "base", dtype="bfloat16"), tmp_path / "chat"
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    names = ["q_proj", "v_proj", "down_proj"]
    made = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn_like(weight) * 0.1)
    folder.mkdir()
    save_adapter(made.base_model.model, folder, lambda weight: weight.detach(), True, str(base))
    byte_level().save_pretrained(folder)
    facts = {"labels": (), "max_length": 64, "base": str(base), "base_digest": weights_digest(base)}
    write_metadata(folder, ModelMetadata(task="text_generation", **facts))
    return folder


def unmerged(base: Path, folder: Path) -> Any:
    import transformers

    return peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), folder)


def test_merged(adapter: Path, tmp_path: Path) -> None:
    import transformers

    raypath.export(adapter, tmp_path / "out", to="hf")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    wanted = logits(unmerged(tmp_path / "base", adapter))
    assert (logits(found) - wanted).norm() / wanted.norm() < 1e-5
    assert (logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")) - wanted).norm() > 0.1
    metadata = read_metadata(tmp_path / "out")
    assert (metadata.base, metadata.base_digest) == ("base", "")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    asked = ["a lovely cup", "it was late"]
    one, other = (raypath.load(each).generate(asked, max_new_tokens=6) for each in (adapter, tmp_path / "out"))
    assert [each.text for each in one] == [each.text for each in other]


def test_alone(adapter: Path, tmp_path: Path) -> None:
    raypath.export(adapter, tmp_path / "out", to="peft")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not {"model.safetensors", "config.json"} & names
    torch.testing.assert_close(
        logits(unmerged(tmp_path / "base", tmp_path / "out")), logits(unmerged(tmp_path / "base", adapter))
    )
    assert "peft.PeftModel.from_pretrained(base, FOLDER)" in (tmp_path / "out" / "README.md").read_text()


def test_as_gguf(adapter: Path, tmp_path: Path) -> None:
    import transformers

    pytest.importorskip("gguf", reason="extra chat")
    raypath.export(adapter, tmp_path / "out", to="gguf")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file="chat-f16.gguf")
    wanted = logits(unmerged(tmp_path / "base", adapter))
    assert (logits(found) - wanted).norm() / wanted.norm() < 0.005


def test_another_base(adapter: Path, tmp_path: Path) -> None:
    decoder(tmp_path / "base", tie_word_embeddings=True)
    with pytest.raises(DataError, match="were trained on another base than"):
        raypath.export(adapter, tmp_path / "out", to="hf")
    assert not (tmp_path / "out").exists()
