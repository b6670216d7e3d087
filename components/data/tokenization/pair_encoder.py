"""Rows of token ids of pairs of texts: those of the tokenizers library, at the cost of the tokens that are left.

The library encodes both texts of a pair to their ends. It then drops tokens of the longer text until both are equally
long (`longest_first`) and combines each part that it dropped of the first text with each of the second, so that its
memory grows with the product of both lengths: two texts of 2 MB take more than 100 GB. Here each text is cut and
encoded on its own, as in `RowEncoder`, and the special tokens of a pair are put around what is left.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from raypath.components.data.tokenization.row_encoder import RowEncoder
from raypath.components.data.tokenization.text_cut import GROWTH
from raypath.components.data.tokenization.text_pair import TextPair

ORDERED = GROWTH
"""First cuts up to which the longer of two long texts is found exactly."""


class PairTokens(NamedTuple):
    """Token ids that a tokenizer adds before, between and after the two texts of a pair."""

    before: list[int]
    between: list[int]
    after: list[int]


class PairEncoder:
    """Encode pairs of texts, at most `max_length` tokens each with special tokens."""

    def __init__(self, rows: RowEncoder, tokens: PairTokens) -> None:
        self._rows, self._tokens = rows, tokens
        self._spare = rows.max_length - sum(map(len, tokens))
        """Tokens of a row that are left for both texts."""

    @classmethod
    def of(cls, rows: RowEncoder) -> Self | None:
        """Return an encoder; None for a tokenizer that does more than add special tokens around the texts."""
        a, b = rows.rows(["a", "b"], special_tokens=False)
        probes = [TextPair("a", "b"), TextPair("b a b a", "a b")]
        found = rows.rows([*probes])
        first = _index(found[0], a, 0)
        second = _index(found[0], b, first + len(a))
        if not a or not b or min(first, second) < 0:
            return None
        made = cls(rows, PairTokens(found[0][:first], found[0][first + len(a) : second], found[0][second + len(b) :]))
        return made if any(made._tokens) and made.encode(probes)[0] == found else None

    def encode(self, pairs: list[TextPair]) -> tuple[list[list[int]], list[bool]]:
        """Return the token ids of each pair, and whether it was truncated."""
        texts = [text for pair in pairs for text in (pair.first, pair.second)]
        prefixes, ids = self._rows.filled(texts, special_tokens=False)
        rows, truncated = [], []
        for n, pair in enumerate(pairs):
            first, second = ids[2 * n : 2 * n + 2]
            counts = len(first), len(second)
            if self._spare % 2 and min(counts) == self._rows.max_length:
                counts = self._counts(pair, *prefixes[2 * n : 2 * n + 2])
            kept = longest_first(*counts, self._spare)
            before, between, after = self._tokens
            rows.append([*before, *self._kept(first, kept[0]), *between, *self._kept(second, kept[1]), *after])
            truncated.append(sum(counts) > self._spare)
        return rows, truncated

    def _kept(self, ids: list[int], count: int) -> list[int]:
        return ids[:count] if self._rows.right else ids[len(ids) - count :]

    def _counts(self, pair: TextPair, *prefixes: str) -> tuple[int, int]:
        """Count the tokens of two texts that both fill a row, to tell the longer one, which keeps one token more.

        Exact, unless both have more characters than `ORDERED` first cuts. Of such texts so many are counted.
        """
        texts, size = (pair.first, pair.second), ORDERED * self._rows.size
        prefixes = tuple(self._rows.cut.prefix(text, size) for text in texts)
        while True:
            first, second = map(self._rows.count, prefixes)
            is_cut = [len(prefix) < len(text) for prefix, text in zip(prefixes, texts, strict=True)]
            # A text that was cut has at least the tokens that were counted.
            if is_cut[0] == is_cut[1] or (first > second if is_cut[0] else second > first):
                return first, second
            size *= GROWTH
            prefixes = tuple(
                self._rows.cut.prefix(text, size) if cut else text for text, cut in zip(texts, is_cut, strict=True)
            )


def _index(ids: list[int], part: list[int], start: int) -> int:
    """Return the position of a part in a list from `start` on, -1 if it is not there."""
    return next((n for n in range(max(start, 0), len(ids)) if ids[n : n + len(part)] == part), -1)


def longest_first(first: int, second: int, spare: int) -> tuple[int, int]:
    """Return how many tokens of two texts the tokenizers library keeps in a row that has `spare` for them.

    Source: `truncate_encodings` in tokenizers/src/utils/truncation.rs, version 0.22.
    """
    if first + second <= spare:
        return first, second
    short = min(first, second)
    if 2 * short > spare:
        short = spare // 2
    long = spare - short
    return (long, short) if first > second else (short, long)
