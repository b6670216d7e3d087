"""The layer that pools is an ordinary one of the model's class, in every backend."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypath.components.core.errors import DataError
from raypath.components.inference.backends.openvino_export import export, quantize
from raypath.components.inference.engine import Engine
from raypath.components.inference.pooling import embedder
from raypath.components.models.encoders.fast_bert import read_first_token_only
from raypath.components.models.heads.pooling_layer import SQUEEZE, append_pooling, is_pooling, output_layer
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.tasks.catalog import load_task
from tests.tiny import LABELS, save_tokenizer, tiny_config, tiny_gpt2

IDS = torch.tensor([[101, 2307, 2919, 102, 0, 0], [101, 2919, 2307, 2307, 2307, 102]])
MASK = (IDS > 0).long()
TOKENS = [[101, *[2000 + 37 * k % 900 for k in range(n)], 102] for n in (1, 30, 4, 17, 4, 9)]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def _classifier(kind: str, seed: int = 0) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    more = {"embedding_size": 32} if kind == "electra" else {}
    config = AutoConfig.for_model(kind, vocab_size=3000, pad_token_id=0, **SHAPE, **more)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(5.0)
    return model


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_the_head_reads_the_mean_of_the_tokens(kind: str) -> None:
    model = _classifier(kind)
    with torch.no_grad():
        states = model.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    weights = MASK[..., None].float()
    mean = (states * weights).sum(1) / weights.sum(1)
    wanted = torch.nn.functional.layer_norm(mean, (32,))
    append_pooling(model)
    assert is_pooling(model.base_model.encoder.layer[-1])
    seen: list[Any] = []
    output_layer(model).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        found = model.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state[:, 0]
        logits = model(input_ids=IDS, attention_mask=MASK).logits
        read_first_token_only(model)
        again = model(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(found, wanted, atol=0.01, rtol=0)
    torch.testing.assert_close(again, logits)
    act = torch.nn.functional.gelu if kind == "electra" else torch.tanh
    torch.testing.assert_close(seen[0], act(found * SQUEEZE))


def test_a_second_layer_is_not_added_and_a_decoder_has_none(tmp_path: Path) -> None:
    from transformers import GPT2ForSequenceClassification

    model = _classifier("bert")
    append_pooling(model)
    append_pooling(model)
    assert len(model.bert.encoder.layer) == model.config.num_hidden_layers == 3
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert not any(name.startswith(("bert.encoder.layer.2", "bert.pooler")) for name in trained)
    other = GPT2ForSequenceClassification.from_pretrained(tiny_gpt2(tmp_path / "gpt2", pad_token_id=0))
    with pytest.raises(DataError, match="needs the layers of BERT, which a gpt2 does not have"):
        append_pooling(other)


@pytest.mark.parametrize(("kind", "decoder"), [("deberta-v2", False), ("layoutlm", False), ("bert", True)])
def test_other_models_with_layers_have_none(kind: str, decoder: bool) -> None:
    """Their attention has no such weights, does not read its first token alone, or only looks back."""
    model = _classifier(kind)
    model.config.is_decoder = decoder
    with pytest.raises(DataError, match=f"needs the layers of BERT, which a {kind} does not have"):
        append_pooling(model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the layer, as `finetune` leaves one."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("pooled")
    model = BertForSequenceClassification(tiny_config(max_position_embeddings=64, num_labels=2)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(5.0)
    append_pooling(model)
    with torch.no_grad():
        model.classifier.weight.mul_(20.0)
    model.save_pretrained(place)
    save_tokenizer(place)
    write_metadata(place, ModelMetadata(task="text_classification", labels=LABELS, max_length=32))
    export(place, load_task(ModelMetadata(task="text_classification", labels=LABELS, max_length=32)), place)
    quantize(place, TOKENS * 10, 1, 5e-4)
    return place


@pytest.mark.parametrize(("precision", "most"), [("bf16", 0.15), ("openvino", 0.15), ("openvino-int8", 0.3)])
def test_each_precision_answers_as_float32_does(folder: Path, precision: Any, most: float) -> None:
    from transformers import AutoModelForSequenceClassification

    exact = Engine(folder, precision="fp32").record(TOKENS)
    found = Engine(folder, precision=precision).record(TOKENS)
    assert np.abs(found - exact).max() / exact.std() < most
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        for row, ids in enumerate(TOKENS):
            logits = plain(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits
            np.testing.assert_allclose(logits[0].numpy(), exact[row], atol=1e-3)


def test_embeddings_are_those_of_the_mean(folder: Path) -> None:
    engine = Engine(folder, precision="fp32")
    found = embedder(engine, folder).record(TOKENS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    with torch.no_grad():
        for row, ids in enumerate(TOKENS):
            batch = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
            state = engine.model.base_model(**batch).last_hidden_state[0, 0].numpy()
            np.testing.assert_allclose(found[row], state / np.linalg.norm(state), atol=0.01)
