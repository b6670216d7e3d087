"""Properties of a base model as a language model: masked, causal or encoder-decoder, special tokens, head.

A base is masked if transformers has a masked model for it and its config is not a decoder's; its tokenizer then needs a
mask token. Any other is causal if transformers has a causal model for it. Encoder-decoders have no `Vocabulary`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.models.heads.stored_head import empty_model, stored_weights
from raypath.components.models.metadata import METADATA_FILE, read_metadata

MASKED, CAUSAL, SEQ2SEQ = "AutoModelForMaskedLM", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"
TEXT_TO_TEXT = "text_to_text"
"""Task of encoder-decoders, by which adapters without their base are recognised."""


@dataclass(frozen=True)
class Vocabulary:
    """Vocabulary of a base model. auto: the transformers Auto class of its language model."""

    auto: str
    size: int
    """Token ids are below this."""
    special: tuple[int, ...]
    """Ids of special tokens, such as [CLS] and padding."""
    mask: int = -1
    """Id of the mask token; -1 for a causal model."""


def load_vocabulary(folder: Path) -> Vocabulary:
    """Load the vocabulary of a base model. Raises DataError for one that cannot be pre-trained."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"base model {folder} does not open ({reason})", fix="give another folder") from None
    auto = _auto(config, folder)
    if auto == MASKED and tokenizer.mask_token_id is None:
        what = f"base model {folder} is a masked model, but its tokenizer has no mask token"
        raise DataError(what, fix="give the tokenizer that it was pre-trained with")
    return Vocabulary(
        auto=auto,
        size=min(len(tokenizer), int(config.vocab_size)),
        special=tuple(sorted(set(tokenizer.all_special_ids))),
        mask=int(tokenizer.mask_token_id) if auto == MASKED else -1,
    )


def model_type(folder: Path) -> str:
    """Return the architecture of a model folder by its config.json, such as t5; "" without one."""
    return str(_read_config(folder).get("model_type") or "")


def is_encoder_decoder(folder: Path) -> bool:
    """Return True for the folder of an encoder-decoder, or of adapters for one."""
    if (folder / METADATA_FILE).is_file() and not (folder / "config.json").is_file():
        return read_metadata(folder).task == TEXT_TO_TEXT
    return bool(_read_config(folder).get("is_encoder_decoder", False))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _auto(config: Any, folder: Path) -> str:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    kind = type(config)
    if not getattr(config, "is_encoder_decoder", False):
        if kind in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
            return MASKED
        if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
            return CAUSAL
    what = f"base model {folder} is a {config.model_type}; wanted an encoder or a decoder with a language model's head"
    raise DataError(what, fix="give another base, such as a BERT or a GPT-2")


def head_is_new(folder: Path, auto: str) -> bool:
    """Return True if the base's files have no language model head, as those of sentence encoders."""
    model = empty_model(auto, _config(folder))
    # Weights that the head shares with the embeddings count as embeddings.
    heads = {name.partition(".")[0] for name, _ in model.named_parameters()} - {model.base_model_prefix}
    return bool(heads) and not any(name.partition(".")[0] in heads for name, _ in stored_weights(folder))


def keep_pooler(folder: Path, auto: str, out: Path) -> None:
    """Add the base's pooler, which a language model does not have, to the trained weights in `out`.

    A classifier that starts from them has a pooler; without this it would start from random weights.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    prefix, path = f"{empty_model(auto, _config(folder)).base_model_prefix}.", out / "model.safetensors"
    poolers = {}
    for name, file in stored_weights(folder):
        if name.removeprefix(prefix).startswith("pooler."):
            with safe_open(file, "pt") as opened:
                poolers[prefix + name.removeprefix(prefix)] = opened.get_tensor(name).float()
    if poolers and path.is_file():
        save_file({**poolers, **load_file(path)}, path, metadata={"format": "pt"})


def _config(folder: Path) -> Any:
    import transformers

    return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
