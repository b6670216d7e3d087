"""Cache of tokenized words: BERT's tokenizer takes 100 us for a text of 40 words, most of which it has seen before.

A text is split at spaces and only new pieces are given to the tokenizer. The ids are those of the whole text, since the
steps of such a tokenizer look at one character or one word at a time, and no word goes across a space.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

MOST = 100_000
"""Pieces in memory, about 25 MiB; when there are more, the cache is emptied."""
LONGEST = 64
"""Characters of the longest piece that is kept from batch to batch."""
SHORTEST = 8
"""Tokens of a row from which on the cache is used: special tokens and a word fit."""
_MOST_ADDED = 100
_STEPS = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}


class WordCache:
    """Token ids of texts without special tokens, for a tokenizer that `is_supported` and truncates at the right.

    batched: encode new pieces with several threads.
    """

    def __init__(self, backend: Any, batched: bool) -> None:
        self._backend, self._batched = backend, batched
        self._ids: dict[str, list[int]] = {}
        self._added = [token.content for token in _added(backend)]

    @staticmethod
    def is_supported(backend: Any) -> bool:
        """Return True for a tokenizer whose steps are BERT's, with few added tokens."""
        parts = [(kind, getattr(backend, name)) for name, kind in _STEPS.items()]
        if not all(part is not None and json.loads(part.__getstate__())["type"] == kind for kind, part in parts):
            return False
        return len(_added(backend)) <= _MOST_ADDED and not any(token.normalized for token in _added(backend))

    def exceptions(self, texts: list[str]) -> list[int]:
        """Numbers of the texts that contain an added token such as [MASK], which is found before a text is split."""
        return [n for n, text in enumerate(texts) if any(token in text for token in self._added)]

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text, at most some more than the tokenizer's length for a piece without spaces.

        Ids of `exceptions` are of no use.
        """
        rows = [text.split(" ") for text in texts]
        pieces = set(chain.from_iterable(rows))
        if len(self._ids) + len(pieces) > MOST:
            self._ids.clear()
        known = self._ids
        new = [piece for piece in pieces if piece not in known]
        known.update(zip(new, self._encode(new), strict=True))
        found = [list(chain.from_iterable(map(known.__getitem__, row))) for row in rows]
        for piece in new:
            if len(piece) > LONGEST:
                del known[piece]
        return found

    def _encode(self, pieces: list[str]) -> list[list[int]]:
        if self._batched:
            return [made.ids for made in self._backend.encode_batch_fast(pieces, add_special_tokens=False)]
        return [self._backend.encode(piece, add_special_tokens=False).ids for piece in pieces]


def _added(backend: Any) -> list[Any]:
    return list(backend.get_added_tokens_decoder().values())
