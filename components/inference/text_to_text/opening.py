"""Engine for the model of a folder: decoders and encoder-decoders generate differently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.inference.generation.selection import opening
from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.inference.text_to_text.seq2seq_engine import Seq2SeqEngine
from raypath.components.models.language_models import is_encoder_decoder

if TYPE_CHECKING:
    from raypath.components.inference.generation.openvino_genai.engine import OpenVinoGenaiEngine
    from raypath.components.inference.generation.vllm.engine import VllmEngine


def open_engine(
    folder: Path, device: str = "", threads: int = 0
) -> TransformersEngine | OpenVinoGenaiEngine | VllmEngine | Seq2SeqEngine:
    """Open the model of a folder, adapters merged, in the engine that is chosen for it. Raises DataError.

    device: "" takes a GPU if there is one. threads: 0 leaves the library's number.
    """
    if is_encoder_decoder(folder):
        return Seq2SeqEngine.open(folder, device=device)
    return opening.open_engine(folder, threads, device)


def open_transformers(folder: Path, device: str = "") -> TransformersEngine | Seq2SeqEngine:
    """Open the model of a folder in transformers, for what needs its outputs. Raises DataError."""
    return (Seq2SeqEngine if is_encoder_decoder(folder) else TransformersEngine).open(folder, device=device)
