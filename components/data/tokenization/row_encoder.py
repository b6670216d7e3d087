"""Rows of token ids, truncated to one length, of texts that are cut before they are tokenized."""

from __future__ import annotations

from typing import Any

from raypath.components.data.tokenization.text_cut import CHARACTERS, GROWTH, TextCut
from raypath.components.data.tokenization.text_pair import TextPair


class RowEncoder:
    """Encode texts and prefixes of texts with a tokenizer that truncates.

    batched: use the threads of the tokenizers library.
    """

    def __init__(self, backend: Any, batched: bool) -> None:
        self._backend, self._batched = backend, batched
        self.max_length = int(backend.truncation["max_length"])
        self.right = backend.truncation["direction"] == "right"
        """The end of a text is dropped."""
        self.cut = TextCut(backend, self.right)
        self.size = CHARACTERS * self.max_length
        """Characters of a first cut."""

    def encodings(self, inputs: list[str], special_tokens: bool = True) -> list[Any]:
        """Encode texts and pairs as they are."""
        given = [(text.first, text.second) if isinstance(text, TextPair) else text for text in inputs]
        if self._batched:
            return list(self._backend.encode_batch_fast(given, add_special_tokens=special_tokens))
        pairs = [each if isinstance(each, tuple) else (each, None) for each in given]
        return [self._backend.encode(*pair, add_special_tokens=special_tokens) for pair in pairs]

    def rows(self, inputs: list[str], special_tokens: bool = True) -> list[list[int]]:
        """Return the token ids of texts and pairs as they are."""
        return [encoding.ids for encoding in self.encodings(inputs, special_tokens)]

    def filled(self, texts: list[str], special_tokens: bool = True) -> tuple[list[str], list[list[int]]]:
        """Return prefixes that fill a row, or the texts, and their token ids, which are the same as the texts'."""
        return self._filled(texts, self.size, special_tokens)

    def _filled(self, texts: list[str], size: int, special_tokens: bool) -> tuple[list[str], list[list[int]]]:
        """Encode prefixes of about `size` characters, and longer ones of the texts whose prefix does not fill a row."""
        prefixes = [self.cut.prefix(text, size) for text in texts]
        rows = self.rows(prefixes, special_tokens)
        short = [n for n, row in enumerate(rows) if len(row) < self.max_length and len(prefixes[n]) < len(texts[n])]
        if short:
            longer = self._filled([texts[n] for n in short], GROWTH * size, special_tokens)
            for n, prefix, row in zip(short, *longer, strict=True):
                prefixes[n], rows[n] = prefix, row
        return prefixes, rows

    def count(self, text: str) -> int:
        """Return the number of tokens of a text without special tokens and truncation."""
        [encoding] = self.encodings([text], special_tokens=False)
        return sum(len(part.ids) for part in (encoding, *encoding.overflowing))
