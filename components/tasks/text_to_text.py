"""Text to text: an encoder-decoder that writes a target for a source, such as a translation or a summary.

Rows have `input_ids`, the tokens of the source followed by those of the target, and `loss_mask`, which marks the
latter. The loss is the cross entropy over target tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, ParamsError
from raypath.components.models.adapters import adapter_base, is_adapter
from raypath.components.models.base_models import build_model
from raypath.components.models.language_models import SEQ2SEQ, TEXT_TO_TEXT, is_encoder_decoder, model_type
from raypath.components.tasks.text_generation import TextGeneration

BY_LANGUAGE = frozenset({"mbart", "m2m_100", "nllb-moe", "seamless_m4t", "seamless_m4t_v2"})
"""Architectures whose first token selects a language."""


class TextToText(TextGeneration):
    """Cross entropy over the tokens of targets. A batch is packed, and padded by the module that the loop calls."""

    name = TEXT_TO_TEXT
    auto = SEQ2SEQ
    pads = True
    served = False

    @classmethod
    def check_no_base(cls) -> None:
        """Raise ParamsError: there is no encoder-decoder in a package."""
        fix = "set -s finetune.base=PATH or hf://NAME, such as hf://google-t5/t5-small or hf://facebook/bart-base"
        raise ParamsError(f"the task {cls.name} has no default base model", fix=fix)

    @classmethod
    def check_base(cls, base: str, folder: Path) -> None:
        """Raise DataError for a model folder that is no encoder-decoder."""
        if not is_encoder_decoder(folder):
            what = f"base model {base} is a {model_type(folder)}; wanted an encoder-decoder such as T5, BART or Marian"
            raise DataError(what, fix="give another base, or use the workflow chat for a decoder")
        if model_type(folder) in BY_LANGUAGE:
            what = f"base model {base} is a {model_type(folder)}, whose first token selects a language"
            raise DataError(what, fix="give a base without such tokens, such as a T5, a BART or a Marian")

    def build(self, folder: str, dropout: float | None) -> Any:
        """Build the encoder-decoder in `folder`, or the base of adapters there. Raises DataError for another model."""
        folder = str(adapter_base(Path(folder))) if is_adapter(Path(folder)) else folder
        self.check_base(folder, Path(folder))
        model = build_model(self.auto, folder, (), dropout)
        model.config.num_labels = 2
        # The rows teach the length of a target; limits of the base are those of other texts.
        settings = model.generation_config
        settings.min_length, settings.max_length, settings.num_beams = None, None, None
        return model

    def module(self, model: Any, device: Any = None) -> Any:
        """Return an EncoderDecoder around the model. device: that it will be on."""
        from raypath.components.models.decoder.encoder_decoder import EncoderDecoder

        return EncoderDecoder(model)
