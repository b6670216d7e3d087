"""A tokenizer.json for the byte-level BPE vocabulary of a GGUF file, as GPT-2 and SmolLM have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raypath.components.core.errors import DataError

CONTROL, USER_DEFINED = 3, 4
"""Types of tokens that are no pieces of text: those with a meaning, such as the end of a turn, and literal ones."""
_DIGITS_ALONE = {"gpt-2": False, "smollm": True}
"""Known ways to divide a text before BPE: whether each digit is a piece of its own."""
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}

Values = Callable[..., Any]
"""Returns the value of a key of the file, or a default: `GgufFile.value`."""


def build_tokenizer(value: Values) -> Any:
    """Build a fast tokenizer, which adds no special tokens. Raises DataError for a vocabulary of another kind."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind, divided = value("tokenizer.ggml.model"), value("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or divided not in _DIGITS_ALONE:
        what = f"the tokenizer of the file is {kind} ({divided}); wanted gpt2 with {' or '.join(_DIGITS_ALONE)}"
        raise DataError(what, fix="give another base")
    tokens, types = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if _DIGITS_ALONE[divided]:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])
    else:
        tokenizer.pre_tokenizer = bytes_
    tokenizer.decoder = decoders.ByteLevel()
    for token, its in zip(tokens, types, strict=True):
        if its in (CONTROL, USER_DEFINED):
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=its == CONTROL)])
    return tokenizer


def tokenizer_settings(value: Values, max_length: int) -> dict[str, Any]:
    """Return the content of tokenizer_config.json."""
    tokens = value("tokenizer.ggml.tokens")
    ids = {role: value(f"tokenizer.ggml.{name}_token_id") for role, name in _ROLES.items()}
    named = {f"{role}_token": tokens[number] for role, number in ids.items() if number is not None}
    more = {"add_prefix_space": False, "clean_up_tokenization_spaces": False}
    return {**named, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, **more}
