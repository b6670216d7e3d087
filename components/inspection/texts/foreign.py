"""Texts that a base for English reads badly: by their language, else by what its tokenizer makes of their words.

A tokenizer for English divides English words into 1.1 to 1.6 tokens on average, those of other languages in Latin
script into more than 2; of other scripts it does not know most words at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raypath.components.core.arrays import Array

if TYPE_CHECKING:
    from raypath.components.inspection.texts.words import Words

TEXTS, CHARACTERS = 1_000, 500
"""Most texts that are looked at, spread evenly, and characters of each."""
MOST_TOKENS, MOST_UNKNOWN = 1.8, 0.1
"""Tokens a word and share of unknown words, from which texts of an unknown language count as foreign."""
_SHOWN = 0.05


@dataclass(frozen=True)
class ForeignTexts:
    """Texts that are not English.

    texts: with at least one word, in the sample; foreign: of these; languages: the most frequent of them, the first
    most; unknown: share of the words of foreign texts that the tokenizer does not know; tokens: mean number a word.
    """

    texts: int
    foreign: int
    languages: tuple[str, ...] = ()
    unknown: float = 0.0
    tokens: float = 1.0

    @property
    def share(self) -> float:
        """Share of the texts that are foreign."""
        return self.foreign / self.texts if self.texts else 0.0


def find_foreign(texts: Sequence[str], folder: Path) -> ForeignTexts:
    """Look at a sample of texts. folder: of a base for English, with tokenizer.json."""
    import pyarrow as pa

    from raypath.components.inspection.texts.languages import NAMES, UNKNOWN, language_codes
    from raypath.components.inspection.texts.words import split_words

    chosen = np.unique(np.linspace(0, max(0, len(texts) - 1), min(TEXTS, len(texts))).astype(int))
    column = pa.array([texts[n][:CHARACTERS] for n in chosen], pa.string())
    words = split_words(column)
    codes, present = language_codes(column, words), words.counts > 0
    unknown, english = NAMES.index(UNKNOWN), NAMES.index("en")
    tokens, missing = _tokenized(words.vocabulary, folder)
    foreign = present & (codes != unknown) & (codes != english)
    rest = present & (codes == unknown)
    per_word, lost = _means(words, rest, tokens, missing)
    if per_word > MOST_TOKENS or lost > MOST_UNKNOWN:
        foreign |= rest
    counts = np.bincount(codes[foreign], minlength=len(NAMES))
    order = [n for n in np.argsort(-counts, kind="stable") if counts[n] > _SHOWN * foreign.sum() and n != unknown]
    per_word, lost = _means(words, foreign, tokens, missing)
    names = tuple(NAMES[n].removeprefix("script:") for n in order)
    return ForeignTexts(int(present.sum()), int(foreign.sum()), names, lost, per_word)


def _tokenized(vocabulary: list[str], folder: Path) -> tuple[Array, Array]:
    """Number of tokens of each word, int [U], and a mask of those with an unknown token, bool [U]; 0 for numbers."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "[UNK]")
    made = [each.ids for each in tokenizer.encode_batch_fast(vocabulary, add_special_tokens=False)]
    # Numbers and names with digits are alike in all languages.
    sizes = [len(ids) if word.isalpha() else 0 for word, ids in zip(vocabulary, made, strict=True)]
    return np.array(sizes, np.int64), np.array([unknown in ids for ids in made], bool)


def _means(words: Words, rows: Array, tokens: Array, missing: Array) -> tuple[float, float]:
    """Mean tokens of a word, and share of words with an unknown one, over the texts of a mask."""
    codes = words.codes[rows[words.rows]]
    codes = codes[tokens[codes] > 0]
    return (float(tokens[codes].mean()), float(missing[codes].mean())) if len(codes) else (1.0, 0.0)
