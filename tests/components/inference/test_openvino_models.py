"""OpenVINO gives PyTorch's outputs for each model type that it is offered for, pairs of texts included."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from raypath.components.inference.backends.openvino_export import export
from raypath.components.inference.engine import Engine
from raypath.components.models.encoders.fast_bert import FIRST_TOKEN_MODELS
from raypath.components.models.metadata import ModelMetadata, write_metadata
from raypath.components.tasks.catalog import load_task
from tests.tiny import LABELS, save_tokenizer

SEPARATOR = 102
PAIRS = [[101, *range(2000, 2000 + n), SEPARATOR, *range(2500, 2500 + 2 * n), SEPARATOR] for n in (1, 9, 4)]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra openvino is not installed")
@pytest.mark.parametrize("kind", sorted(FIRST_TOKEN_MODELS))
def test_each_type_of_model(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    monkeypatch.setenv("RAYPATH_PRECISION", "fp32")
    torch.manual_seed(0)
    more = {"embedding_size": 32} if kind == "electra" else {}
    config = AutoConfig.for_model(
        kind,
        vocab_size=3000,
        pad_token_id=0,
        num_labels=2,
        max_position_embeddings=64,
        type_vocab_size=2,
        **SHAPE,
        **more,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(5.0)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    outputs = []
    for separator in (None, SEPARATOR):
        card = ModelMetadata(task="text_classification", labels=LABELS, max_length=32, separator=separator)
        write_metadata(tmp_path, card)
        export(tmp_path, load_task(card), tmp_path)
        exact = Engine(tmp_path, precision="fp32").record(PAIRS)
        found = Engine(tmp_path, precision="openvino").record(PAIRS)
        np.testing.assert_allclose(found, exact, atol=1e-3 * float(exact.std()))
        outputs.append(found)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01, "segments change the outputs"
