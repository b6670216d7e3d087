"""The top layer computes the first token alone: the same answers and the same gradients, for every kind it takes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers

from raypath.components.models.encoders.fast_bert import fuse_qkv, read_first_token_only, replay_features

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
}


def _model(kind: str, **more: int) -> Any:
    config = transformers.AutoConfig.for_model(kind, **SHAPE | more, num_labels=3)
    config._attn_implementation = "sdpa"
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(config, name, 0.0)
    torch.manual_seed(0)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def _batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 100, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor([9, 5, 1, 7])[:, None]).long()
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask}


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "camembert", "electra", "data2vec-text"])
@pytest.mark.parametrize("padded", [True, False])
def test_answers_and_gradients_are_those_of_the_whole_model(kind: str, padded: bool) -> None:
    whole = _model(kind)
    lean = copy.deepcopy(whole)
    assert read_first_token_only(lean)
    assert fuse_qkv(lean)
    batch = _batch()
    if not padded:
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    outputs = [model(**batch).logits for model in (whole, lean)]
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-6, rtol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    for (name, one), two in zip(whole.named_parameters(), lean.parameters(), strict=True):
        wanted = one.grad if one.grad is not None else torch.zeros_like(one)
        found = two.grad if two.grad is not None else torch.zeros_like(two)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4, msg=name)


def test_one_layer_is_enough() -> None:
    whole = _model("bert", num_hidden_layers=1)
    lean = copy.deepcopy(whole)
    assert read_first_token_only(lean)
    torch.testing.assert_close(lean(**_batch()).logits, whole(**_batch()).logits, atol=1e-6, rtol=1e-5)


def test_other_shapes_are_left_alone() -> None:
    config = transformers.DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    assert not read_first_token_only(transformers.DistilBertForSequenceClassification(config))
    config = transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=2)
    model = transformers.GPT2ForSequenceClassification(config)
    assert not read_first_token_only(model)
    assert not fuse_qkv(model)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_the_head_alone_answers_on_features_as_the_model_does(kind: str) -> None:
    model, batch = _model(kind).eval(), _batch()
    with torch.no_grad():
        wanted = model(**batch).logits
        features = model.base_model(**batch).last_hidden_state[:, 0]
        replay_features(model)
        found = model(inputs_embeds=features[:, None]).logits
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
