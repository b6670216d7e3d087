"""Special tokens of a unigram tokenizer, which are pieces of its vocabulary too: `<s>` in a text would become one."""

from __future__ import annotations

import json
from typing import Any

from raypath.components.models.conversion.unigram import NEVER


def exclude_special_pieces(backend: Any) -> None:
    """Make a unigram tokenizer divide the names of its special tokens into other pieces; others stay as they are.

    backend: with `encode_special_tokens`. SentencePiece does so itself.
    """
    special = {number: token.content for number, token in backend.get_added_tokens_decoder().items() if token.special}
    if type(backend.model).__name__ != "Unigram" or not _found(backend, special):
        return
    from tokenizers import models

    state = json.loads(backend.model.__getstate__())
    vocabulary = [
        (piece, NEVER if special.get(number) == piece else score)
        for number, (piece, score) in enumerate(state["vocab"])
    ]
    backend.model = models.Unigram(vocabulary, state["unk_id"], state.get("byte_fallback", False))


def _found(backend: Any, special: dict[int, str]) -> bool:
    """Return True if the name of a special token, in a text, is encoded as this token."""
    return any(number in backend.encode(name, add_special_tokens=False).ids for number, name in special.items())
