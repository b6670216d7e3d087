"""Graph of OpenVINO for decoders of Llama's kind, with keys and values as its state.

The shapes of rotary embeddings, norms and attention are those that OpenVINO fuses, and that openvino-genai turns into
paged attention. Inputs: input_ids, attention_mask and position_ids int64 [B, T], beam_idx int32 [B]; output: logits
float32 [B, T, V].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raypath.components.inference.generation.openvino_genai.weights import Weights

TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""`model_type` of the decoders that have this graph."""
ROPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embeddings whose frequencies do not depend on the length of a row."""
LARGE_NEGATIVE = -3e38


def unsupported_reason(config: Any) -> str:
    """Return why a configuration has no graph here, "" if it has one."""
    if config.model_type not in TYPES:
        return f"not for models of type {config.model_type}"
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"not for the activation {config.hidden_act}"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "not for attention with a sliding window"
    if config.model_type == "mistral" and getattr(config, "sliding_window", None):
        return "not for attention with a sliding window"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("partial_rotary_factor", 1) != 1:
        return "not for rotary embeddings of a part of each head"
    kind = rope.get("rope_type", "default")
    return "" if kind in ROPES else f"not for rotary embeddings of kind {kind}"


def build_graph(model: Any, int8: bool) -> tuple[Any, Weights]:
    """Return the graph of a causal language model of transformers, and its weights, which have to outlive it.

    int8: matrices of the layers and of the head are in 8 bits.
    """
    from openvino import Model, Type, opset13

    weights = Weights(model.state_dict(), int8)
    inputs = {name: _input(name, Type.i64, 2) for name in ("input_ids", "attention_mask", "position_ids")}
    inputs["beam_idx"] = _input("beam_idx", Type.i32, 1)
    graph = _Decoder(model, weights, inputs)
    logits = graph.logits()
    logits.output(0).get_tensor().set_names({"logits"})
    return Model([opset13.result(logits)], graph.sinks, list(inputs.values()), "decoder"), weights


def _input(name: str, kind: Any, dimensions: int) -> Any:
    from openvino import opset13

    made = opset13.parameter([-1] * dimensions, kind, name=name)
    made.output(0).get_tensor().set_names({name})
    return made


def _axes(*values: int) -> Any:
    return np.array(values, np.int64)


class _Decoder:
    """Nodes of one decoder. B: rows, T: new tokens, S: all tokens."""

    def __init__(self, model: Any, weights: Weights, inputs: dict[str, Any]) -> None:
        from openvino import opset13

        self._ops: Any = opset13
        self._weights, self._inputs, self._config = weights, inputs, model.config
        config, ops = self._config, self._ops
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._width = int(getattr(config, "head_dim", None) or config.hidden_size // self._heads)
        self._rows = ops.gather(ops.shape_of(inputs["input_ids"]), _axes(0), np.int64(0))  # int64 [1]
        self._cosine, self._sine = self._rotary(model.model.rotary_emb)
        self._mask = self._padding()
        self.sinks: list[Any] = []
        """Nodes that store keys and values."""

    def logits(self) -> Any:
        """Build all layers, and return the logits float32 [B, T, V]."""
        ops, config = self._ops, self._config
        states = ops.gather(self._weights.plain("model.embed_tokens.weight"), self._inputs["input_ids"], np.int64(0))
        for number in range(config.num_hidden_layers):
            states = self._layer(f"model.layers.{number}.", number, states)
        return self._linear(self._norm(states, "model.norm.weight"), "lm_head")

    def _layer(self, name: str, number: int, states: Any) -> Any:
        """Apply one layer to [B, T, hidden]."""
        ops = self._ops
        attended = self._attention(name + "self_attn.", number, self._norm(states, name + "input_layernorm.weight"))
        states = ops.add(states, attended)
        inner = self._norm(states, name + "post_attention_layernorm.weight")
        gate = ops.swish(self._linear(inner, name + "mlp.gate_proj"))
        product = ops.multiply(gate, self._linear(inner, name + "mlp.up_proj"))
        return ops.add(states, self._linear(product, name + "mlp.down_proj"))

    def _attention(self, name: str, number: int, states: Any) -> Any:
        ops = self._ops
        queries = self._turned(self._split(states, name + "q_proj", self._heads, name + "q_norm.weight"))
        keys = self._turned(self._split(states, name + "k_proj", self._groups, name + "k_norm.weight"))
        values = self._split(states, name + "v_proj", self._groups)
        stored = [self._stored(each, number, kind) for each, kind in ((keys, "key"), (values, "value"))]
        found = ops.scaled_dot_product_attention(queries, *(self._repeated(each) for each in stored), self._mask)
        joined = ops.reshape(ops.transpose(found, _axes(0, 2, 1, 3)), _axes(0, 0, -1), True)
        return self._linear(joined, name + "o_proj")

    def _linear(self, states: Any, name: str) -> Any:
        ops = self._ops
        made = ops.matmul(states, self._weights.matrix(name + ".weight"), False, True)
        made.set_friendly_name(name)
        bias = name + ".bias"
        return ops.add(made, self._weights.plain(bias)) if self._weights.has(bias) else made

    def _norm(self, states: Any, name: str) -> Any:
        """Divide by the root mean square (Zhang and Sennrich, 2019)."""
        ops = self._ops
        mean = ops.reduce_mean(ops.power(states, np.float32(2)), _axes(-1), True)
        root = ops.sqrt(ops.add(mean, np.float32(self._config.rms_norm_eps)))
        return ops.multiply(ops.multiply(states, ops.divide(np.float32(1), root)), self._weights.plain(name))

    def _split(self, states: Any, name: str, heads: int, norm: str = "") -> Any:
        """Project [B, T, hidden] to heads [B, heads, T, width]; norm: name of a norm over each head, if it exists."""
        ops = self._ops
        made = ops.reshape(self._linear(states, name), _axes(0, 0, heads, self._width), True)
        if norm and self._weights.has(norm):
            made = self._norm(made, norm)
        return ops.transpose(made, _axes(0, 2, 1, 3))

    def _turned(self, states: Any) -> Any:
        """Apply the rotary embedding to [B, heads, T, width]."""
        ops, half = self._ops, self._width // 2
        ends = (0, half), (half, 2**63 - 1)
        first, second = (ops.slice(states, _axes(start), _axes(end), _axes(1), _axes(3)) for start, end in ends)
        swapped = ops.concat([ops.multiply(second, np.float32(-1)), first], -1)
        return ops.add(ops.multiply(states, self._cosine), ops.multiply(swapped, self._sine))

    def _rotary(self, embedding: Any) -> tuple[Any, Any]:
        """Return cosine and sine of the positions, float32 [B, 1, T, width]. embedding: of transformers."""
        from openvino import Type

        ops, scale = self._ops, np.float32(embedding.attention_scaling)
        frequencies = ops.constant(embedding.inv_freq.float().cpu().numpy().reshape(1, -1, 1))
        positions = ops.convert(ops.unsqueeze(self._inputs["position_ids"], np.int64(1)), Type.f32)
        shape = ops.concat([self._rows, _axes(1), _axes(1)], 0)
        spread = ops.broadcast(frequencies, shape, broadcast_spec="BIDIRECTIONAL")
        half = ops.transpose(ops.matmul(spread, positions, False, False), _axes(0, 2, 1))
        angles = ops.concat([half, half], -1)
        pair = [each if scale == 1 else ops.multiply(each, scale) for each in (ops.cos(angles), ops.sin(angles))]
        cosine, sine = (ops.unsqueeze(each, np.int64(1)) for each in pair)
        return cosine, sine

    def _stored(self, states: Any, number: int, kind: str) -> Any:
        """Append new keys or values [B, groups, T, width] to the state; returns all of them [B, groups, S, width]."""
        from openvino import PartialShape, Type, opset6
        from openvino.op.util import Variable, VariableInfo

        ops, info = self._ops, VariableInfo()
        info.data_shape = PartialShape([-1, self._groups, -1, self._width])
        info.data_type = Type.f32
        info.variable_id = f"past_key_values.{number}.{kind}present.{number}.{kind}"
        variable = Variable(info)
        empty = ops.broadcast(np.float32(0), ops.concat([self._rows, _axes(self._groups, 0, self._width)], 0))
        past = ops.gather(opset6.read_value(empty, variable), self._inputs["beam_idx"], np.int64(0))
        joined = ops.concat([past, states], 2)
        self.sinks.append(opset6.assign(joined, variable))
        return joined

    def _repeated(self, states: Any) -> Any:
        """Repeat keys or values [B, groups, S, width] for the heads that share them."""
        if self._heads == self._groups:
            return states
        ops = self._ops
        shape = _axes(1, 1, self._heads // self._groups, 1, 1)
        spread = ops.broadcast(ops.unsqueeze(states, np.int64(2)), shape, broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(spread, _axes(0, self._heads, -1, self._width), True)

    def _padding(self) -> Any:
        """Return what is added to the scores, float32 [B, 1, 1, S]. Paged attention, which is causal, drops it."""
        from openvino import Type

        ops = self._ops
        absent = ops.subtract(np.float32(1), ops.convert(self._inputs["attention_mask"], Type.f32))
        spread = ops.unsqueeze(ops.unsqueeze(absent, np.int64(1)), np.int64(1))
        return ops.multiply(spread, np.float32(LARGE_NEGATIVE))
