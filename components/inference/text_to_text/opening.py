"""Engine for the model of a folder: decoders and encoder-decoders generate differently."""

from __future__ import annotations

from pathlib import Path

from raypath.components.inference.generation.transformers_engine import TransformersEngine
from raypath.components.inference.text_to_text.seq2seq_engine import Seq2SeqEngine
from raypath.components.models.language_models import is_encoder_decoder


def open_engine(folder: Path, device: str = "") -> TransformersEngine | Seq2SeqEngine:
    """Open the model of a folder, adapters merged. device: "" takes a GPU if there is one. Raises DataError."""
    return (Seq2SeqEngine if is_encoder_decoder(folder) else TransformersEngine).open(folder, device=device)
