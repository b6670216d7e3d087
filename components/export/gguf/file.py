"""GGUF file of a decoder, written tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from raypath.components.cards.facts import ModelFacts
from raypath.components.core.errors import DataError, ParamsError
from raypath.components.export.gguf.architectures import (
    Architecture,
    architecture_of,
    converted,
    rope_factors,
    write_config,
)
from raypath.components.export.gguf.vocabulary import write_vocabulary
from raypath.components.export.source import Source
from raypath.components.export.target import Progress

WeightType = Literal["f16", "bf16", "q8_0"]
"""Types of matrices; vectors, such as the weights of norms, are always float32."""
WEIGHT_TYPES: tuple[WeightType, ...] = get_args(WeightType)
F16_MAX = 65_504.0
BLOCK = 32
"""Values of a row that share a scale in Q8_0."""


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file. name: in GGUF. key: in the state dict of transformers; "" for the rope factors."""

    name: str
    key: str
    shape: tuple[int, ...]


def import_gguf() -> Any:
    """Import the package gguf. Raises ParamsError where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise ParamsError("GGUF needs the Python package gguf", fix="pip install 'raypath[chat]'") from None
    return gguf


def write_gguf(source: Source, path: Path, kind: WeightType, facts: ModelFacts, progress: Progress) -> None:
    """Write a decoder as one GGUF file. Raises DataError for a model without a GGUF form, ParamsError without gguf.

    Tensors are converted one after another, so that memory holds the model as transformers opens it and one tensor.
    """
    gguf = import_gguf()
    _check_decoder(source.class_name)
    found = architecture_of(source.model_type)
    model, config = source.model, source.model.config
    weights = model.state_dict()
    tensors = list(_tensors(gguf, weights, config, found))
    writer = gguf.GGUFWriter(str(path), found.name)
    try:
        _write_general(gguf, writer, kind, facts)
        write_config(writer, config, found)
        ends = source.chat.end_ids if source.chat else ()
        write_vocabulary(writer, source.tokenizer, config.vocab_size, ends)
        types = [_type_of(gguf, tensor, kind) for tensor in tensors]
        for tensor, stored in zip(tensors, types, strict=True):
            _announce(gguf, writer, tensor, stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        total, done = sum(_bytes(gguf, *each) for each in zip(tensors, types, strict=True)), 0
        for tensor, stored in zip(tensors, types, strict=True):
            weight = converted(tensor.name, weights[tensor.key], config, found) if tensor.key else rope_factors(config)
            writer.write_tensor_data(_stored(gguf, tensor.name, weight, stored))
            done += _bytes(gguf, tensor, stored)
            progress(done, total)
    finally:
        writer.close()


def _check_decoder(name: str) -> None:
    if name and not name.endswith(("ForCausalLM", "LMHeadModel")):
        fix = "use --to hf" if name.endswith(("ForConditionalGeneration", "MTModel")) else "use --to hf or --to onnx"
        raise DataError(f"GGUF takes causal language models; this is a {name}", fix=fix)


def _write_general(gguf: Any, writer: Any, kind: WeightType, facts: ModelFacts) -> None:
    file_types = {"f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(facts.title)
    if facts.license:
        writer.add_license(facts.license)
    writer.add_file_type(gguf.LlamaFileType[file_types[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _tensors(gguf: Any, weights: Any, config: Any, found: Architecture) -> Iterator[_Tensor]:
    """Yield the tensors of the file. Raises DataError for a weight that the architecture has no name for."""
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == found.name)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    if rope_factors(config) is not None:
        yield _Tensor("rope_freqs.weight", "", tuple(rope_factors(config).shape))
    for key, weight in weights.items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp reads the embedding in its place
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise DataError(f"GGUF's {found.name} has no name for the weight {key}", fix="use --to hf")
        yield _Tensor(name, key, tuple(weight.shape))


def _type_of(gguf: Any, tensor: _Tensor, kind: WeightType) -> Any:
    """Return the type of a tensor: float32 for vectors; F16 where a row is not made of whole blocks of Q8_0."""
    types = gguf.GGMLQuantizationType
    if len(tensor.shape) < 2:
        return types.F32
    if kind == "q8_0" and tensor.shape[-1] % BLOCK:
        return types.F16
    return types[kind.upper()]


def _bytes(gguf: Any, tensor: _Tensor, stored: Any) -> int:
    values, size = gguf.GGML_QUANT_SIZES[stored]
    count = 1
    for length in tensor.shape:
        count *= length
    return int(count // values * size)


def _announce(gguf: Any, writer: Any, tensor: _Tensor, stored: Any) -> None:
    import numpy as np

    types, size = gguf.GGMLQuantizationType, _bytes(gguf, tensor, stored)
    plain = {types.F32: np.float32, types.F16: np.float16}.get(stored)
    if plain is not None:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(plain), size)
        return
    shape = gguf.quant_shape_to_byte_shape(tensor.shape, stored)
    writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), size, stored)


def _stored(gguf: Any, name: str, weight: Any, stored: Any) -> Any:
    """Return a weight as an array of its type in the file. Raises DataError for values that it cannot hold."""
    import numpy as np

    types, values = gguf.GGMLQuantizationType, weight.detach().float().cpu().contiguous().numpy()
    largest = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(largest):
        raise DataError(f"the weight {name} has values that are NaN or infinite", fix="export another version")
    if stored == types.F16 and largest > F16_MAX:
        raise DataError(
            f"the weight {name} has a value of {largest:.3g}, F16 at most {F16_MAX:.0f}", fix="use --type bf16"
        )
    if stored in (types.F32, types.F16):
        return values.astype(np.float32 if stored == types.F32 else np.float16)
    return gguf.quants.quantize(values, stored)
