"""Mean pooling as one more encoder layer, so that a classifier on it is an ordinary model of its class.

A classifier of BERT's family reads the first token's state, which sentence encoders such as all-MiniLM do not train:
their embedding is the mean over all tokens. `append_pooling` adds a layer whose queries and keys are 0, so that
attention is uniform over the tokens, and whose values are the states: the attention is their mean. It is scaled up
before the residual connection, which then adds nothing, and the feed-forward block is 0. The layer's output is the mean
state, standardized over its dimensions: the normalized embedding times the square root of the width, without its mean.
Every backend runs it, and the folder opens with transformers. One layer more costs a sixth of the time of a six-layer
model.
"""

from __future__ import annotations

from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.models.encoders.fast_bert import FIRST_TOKEN_MODELS

GAIN = 1000.0
"""Scale of the mean against the first token's own state."""
SQUEEZE = 0.05
"""Scale of the state before the head's activation, tanh or gelu, which is nearly linear near 0."""
PASSED = 0.5
"""The same where the head passes on the first token's state, whose numbers are below 1."""


def append_pooling(model: Any) -> None:
    """Append the pooling layer to a sequence classifier, frozen, and make its head's dense layer pass the state on.

    The last linear layer of the head (`output_layer`) is unchanged. Raises DataError for a model that does not have
    BERT's layers.
    """
    import torch

    layers, dense = _layers(model), _dense(model)
    if layers is None or dense is None:
        kind = model.config.model_type
        what = f"mean pooling needs the layers of BERT, which a {kind} does not have"
        raise DataError(what, fix="set finetune.method=full, or give a base such as a BERT or RoBERTa")
    if is_pooling(layers[-1]):
        return
    made = type(layers[-1])(model.config).to(dense.weight.device)
    eye = torch.eye(model.config.hidden_size)
    with torch.no_grad():
        for weight in made.parameters():
            weight.zero_()
        made.attention.self.value.weight.copy_(eye)
        made.attention.output.dense.weight.copy_(eye * GAIN)
        made.attention.output.LayerNorm.weight.fill_(1)
        made.output.LayerNorm.weight.fill_(1)
        dense.weight.copy_(eye * SQUEEZE)
        dense.bias.zero_()
    made.requires_grad_(False)
    dense.requires_grad_(False)
    layers.append(made.train(model.training))
    model.config.num_hidden_layers += 1


def pass_states(model: Any) -> None:
    """Make the head's dense layer pass the first token's state on, frozen: what is left to train is a linear layer.

    Private training adds noise to every weight, so that a head of 384 x 384 weights more would learn less. Nothing
    changes for a model without such a layer.
    """
    import torch

    dense = _dense(model)
    if dense is None or dense.weight.shape[0] != dense.weight.shape[1]:
        return
    with torch.no_grad():
        dense.weight.copy_(torch.eye(len(dense.weight)) * PASSED)
        dense.bias.zero_()
    dense.requires_grad_(False)


def is_pooling(layer: Any) -> bool:
    """Return True for a layer that `append_pooling` made."""
    attention = layer.attention.self
    return not bool(attention.query.weight.any() or attention.key.weight.any())


def output_layer(model: Any) -> Any:
    """Return the head's last linear layer: features -> logits."""
    head = model.classifier
    return getattr(head, "out_proj", head)


def _layers(model: Any) -> Any:
    if model.config.model_type not in FIRST_TOKEN_MODELS or getattr(model.config, "is_decoder", False):
        return None
    base = getattr(model, model.base_model_prefix, None)
    return getattr(getattr(base, "encoder", None), "layer", None) or None


def _dense(model: Any) -> Any:
    """Return the layer between the first token's state and the activation: of BERT's pooler, or of the head."""
    pooler = getattr(model.base_model, "pooler", None)
    return getattr(pooler or getattr(model, "classifier", None), "dense", None)
