"""Bytes of single tokens, which may be part of a character."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""Token of one byte, in vocabularies of SentencePiece."""


class TokenBytes:
    """Bytes of the tokens of a tokenizer of the tokenizers library."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def of(self, token: int) -> bytes:
        """Return the bytes of a token's text; those of its name for a special token."""
        name = str(self._backend.id_to_token(token) or "")
        if found := _BYTE.fullmatch(name):
            return bytes([int(found[1], 16)])
        if self._alphabet and token not in self._added and all(character in self._alphabet for character in name):
            return bytes(self._alphabet[character] for character in name)
        return str(self._backend.decode([token], skip_special_tokens=False)).encode()

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._backend.get_added_tokens_decoder())

    @cached_property
    def _alphabet(self) -> dict[str, int]:
        """Byte of each character of GPT-2's alphabet; {} for another kind of tokenizer."""
        decoder = json.loads(self._backend.to_str()).get("decoder") or {}
        kinds = {decoder.get("type"), *(each.get("type") for each in decoder.get("decoders", ()))}
        return _byte_characters() if "ByteLevel" in kinds else {}


def _byte_characters() -> dict[str, int]:
    """Return GPT-2's alphabet: printable bytes as themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
