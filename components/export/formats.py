"""Formats of an export, and what is written for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from raypath.components.cards.facts import ModelFacts
from raypath.components.cards.model_card import model_card
from raypath.components.core.conversations import Message
from raypath.components.core.errors import ParamsError
from raypath.components.core.files import write_atomically
from raypath.components.export import usage
from raypath.components.export.bill_of_materials import FILE, bill_of_materials
from raypath.components.export.chat_style import ChatStyle, style_of
from raypath.components.export.folders import write_adapter, write_transformers
from raypath.components.export.gguf.file import WEIGHT_TYPES, WeightType, write_gguf
from raypath.components.export.gguf.vocabulary import added_tokens
from raypath.components.export.modelfile import modelfile, stops_of
from raypath.components.export.onnx_graph import write_onnx
from raypath.components.export.source import Source
from raypath.components.export.target import Progress, new_target
from raypath.components.homomorphic.encoder import write_encoder
from raypath.components.models.language_models import CAUSAL, SEQ2SEQ, TEXT_TO_TEXT

Format = Literal["hf", "peft", "gguf", "onnx", "encoder"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class _Export:
    """Model, facts and options of an export, and the function that takes its progress."""

    source: Source
    facts: ModelFacts
    weights: WeightType
    progress: Progress


def export_model(
    folder: Path, target: Path, to: Format, facts: ModelFacts, weights: WeightType, progress: Progress
) -> None:
    """Write the model of a folder to the folder `target`, which is new or empty; complete or not at all.

    Args:
        weights: Type of the matrices in GGUF.
        progress: Called with the bytes that are written and all bytes.

    Raises ParamsError for a format, type or target, DataError for a model that the format does not take, StoreError for
    a full disk.
    """
    check_format(to, weights)
    with new_target(target) as place:
        text = _WRITERS[to](_Export(Source(folder), facts, weights, progress), place)
        write_atomically(place / "README.md", text)
        write_atomically(place / FILE, bill_of_materials(facts, place))


def check_format(to: str, weights: str) -> None:
    """Raise ParamsError for an unknown format or type of weights."""
    if to not in FORMATS:
        raise ParamsError(f"format {to!r} is unknown", fix=f"use one of {', '.join(FORMATS)}")
    if weights not in WEIGHT_TYPES:
        raise ParamsError(f"type {weights!r} is unknown", fix=f"use one of {', '.join(WEIGHT_TYPES)}")


def _hf(export: _Export, place: Path) -> str:
    write_transformers(export.source, place, export.progress)
    name = export.source.class_name
    what = f"A transformers folder of the class {name}: weights in safetensors, tokenizer and configuration."
    return model_card(export.facts, "hf", what, usage.TRANSFORMERS.format(name=name))


def _peft(export: _Export, place: Path) -> str:
    write_adapter(export.source, place, export.progress)
    what = (
        "A LoRA adapter in peft's layout, without the weights of its base, which have to be those that are named here."
    )
    kind = SEQ2SEQ if export.source.metadata and export.source.metadata.task == TEXT_TO_TEXT else CAUSAL
    return model_card(export.facts, "peft", what, usage.PEFT.format(auto=kind))


def _gguf(export: _Export, place: Path) -> str:
    file = f"{export.facts.file_name}-{export.weights}.gguf"
    write_gguf(export.source, place / file, export.weights, export.facts, export.progress)
    tokenizer = export.source.tokenizer
    style = _style(export.source)
    begins, _ = added_tokens(tokenizer)
    write_atomically(place / "Modelfile", modelfile(file, style, begins, stops_of(style, tokenizer.eos_token or "")))
    what = f"A GGUF file with matrices in {export.weights.upper()}, and a Modelfile for Ollama."
    return model_card(export.facts, "gguf", what, usage.GGUF.format(name=export.facts.name, file=file))


def _style(source: Source) -> ChatStyle | None:
    chat, tokenizer = source.chat, source.tokenizer
    if chat is None:
        return None

    def render(messages: list[Message], prompt: bool) -> str:
        return chat.render(messages, add_generation_prompt=prompt)

    return style_of(render, tokenizer.bos_token or "", tokenizer.eos_token or "")


def _onnx(export: _Export, place: Path) -> str:
    output = write_onnx(export.source, place, export.progress)
    what = f"An ONNX graph, model.onnx: token ids and attention mask in, {output} out. With the tokenizer."
    return model_card(export.facts, "onnx", what, usage.ONNX.format(output=output))


def _encoder(export: _Export, place: Path) -> str:
    write_encoder(export.source.folder, place)
    what = "The encoder of a classifier, with a head of zeros, for clients that send encrypted features."
    return model_card(export.facts, "encoder", what, usage.ENCODER)


_WRITERS: dict[str, Callable[[_Export, Path], str]] = {
    "hf": _hf,
    "peft": _peft,
    "gguf": _gguf,
    "onnx": _onnx,
    "encoder": _encoder,
}
