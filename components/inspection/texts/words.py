"""Words of texts as hashes, vectorised by Arrow: lower case; each Chinese or Japanese character is a word."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.arrays import Array

_SEPARATORS = r"[^\p{L}\p{M}\p{N}]+"
_IDEOGRAPHS = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"
_CACHE_WORDS = 200_000
_cache: dict[str, int] = {}


@dataclass(frozen=True)
class Words:
    """Words of N texts, M in all.

    vocabulary: U distinct words; hashes: uint64 [U]; codes: int32 [M], index of each word in the vocabulary; starts:
    int64 [N + 1], where each text begins.
    """

    vocabulary: list[str]
    hashes: Array
    codes: Array
    starts: Array

    @property
    def counts(self) -> Array:
        """Words of each text, int64 [N]."""
        return np.diff(self.starts)

    @property
    def rows(self) -> Array:
        """Text of each word, int64 [M]."""
        return np.repeat(np.arange(len(self.starts) - 1), self.counts)


def split_words(texts: pa.Array) -> Words:
    """Split texts, of which none is null."""
    lowered = pc.utf8_lower(texts)
    if pc.any(pc.match_substring_regex(lowered, _IDEOGRAPHS)).as_py():
        lowered = pc.replace_substring_regex(lowered, _IDEOGRAPHS, r" \1 ")
    lists = pc.split_pattern_regex(lowered, _SEPARATORS)
    encoded = pc.dictionary_encode(lists.flatten())
    vocabulary = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(texts)), counts)
    if "" in vocabulary:  # a text that begins or ends with a separator
        kept = codes != vocabulary.index("")
        codes, rows = codes[kept], rows[kept]
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(texts)))])
    return Words(vocabulary, _hashes(vocabulary), codes, starts)


def _hashes(vocabulary: list[str]) -> Array:
    if len(_cache) > _CACHE_WORDS:
        _cache.clear()
    for word in vocabulary:
        if word not in _cache:
            _cache[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return np.array([_cache[word] for word in vocabulary], np.uint64)


def text_hashes(texts: pa.Array) -> Array:
    """Hash whole texts to 64 bits of BLAKE2b, uint64 [N]."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.to_pylist())
    return np.frombuffer(digests, np.uint64)
