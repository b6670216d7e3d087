"""Tokenization: texts to token ids with the tokenizer of a base model, truncated and not padded.

Training and serving share it, so that a model sees the same tokens in both. Texts are texts: `[SEP]` or `<s>` in one is
encoded as its characters, never as the special token of this name.
"""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raypath.components.core.errors import DataError
from raypath.components.core.uris import local_path, scheme
from raypath.components.data.tokenization.pair_encoder import PairEncoder
from raypath.components.data.tokenization.row_encoder import RowEncoder
from raypath.components.data.tokenization.special_pieces import exclude_special_pieces
from raypath.components.data.tokenization.text_pair import TextPair
from raypath.components.data.tokenization.word_cache import SHORTEST, WordCache
from raypath.components.models.base_models import TOKENIZER_FILES, base_folder
from raypath.components.models.conversion.packaged import is_packaged
from raypath.components.models.conversion.tokenizer_backend import load_backend

# Their first position is the one after the padding token, so two of the positions are never used.
_OFFSET_MODELS = {"roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "xmod", "data2vec-text"}


class SpecialTokens(NamedTuple):
    """Token ids that a tokenizer adds before and after a text, and the size of its vocabulary."""

    before: list[int]
    after: list[int]
    vocabulary: int


class Tokenizer(Protocol):
    """Tokenizer of a loaded model, as the engine and the endpoints use it."""

    def encode(self, inputs: Any) -> list[list[int]]:
        """Return the token ids of each input."""
        ...

    def special_tokens(self) -> SpecialTokens:
        """Return the special tokens around a text."""
        ...


class TextTokenizer:
    """Tokenize texts with special tokens included, at most `max_length` tokens each.

    folder: has tokenizer.json, read by the Rust library alone, which starts in milliseconds, or files that
    AutoTokenizer opens. A pickled TextTokenizer contains the tokenizer, so workers need no folder.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        check_length(folder, max_length)
        self.max_length = max_length
        self._batched = True
        self._backend = load_backend(folder)
        self._backend.no_padding()
        self._backend.enable_truncation(max_length, direction=_settings(folder).get("truncation_side", "right"))
        self._prepare()

    def _prepare(self) -> None:
        """Set up what depends on the tokenizer, and what its file does not have."""
        self._backend.encode_special_tokens = True
        exclude_special_pieces(self._backend)
        self._rows = RowEncoder(self._backend, self._batched)
        words = self._rows.right and self.max_length >= SHORTEST and WordCache.is_supported(self._backend)
        self._words = WordCache(self._backend, self._batched) if words else None

    @cached_property
    def _pairs(self) -> PairEncoder | None:
        return PairEncoder.of(self._rows)

    def encode(self, inputs: list[str]) -> list[list[int]]:
        """Return the token ids of each text or pair, 1 to `max_length` of them.

        The end of a long text, which truncation would drop, is not tokenized.
        """
        pairs = [(n, text) for n, text in enumerate(inputs) if isinstance(text, TextPair)]
        if not pairs:
            return self._rows.filled(inputs)[1]
        rows = self._rows.filled(["" if isinstance(text, TextPair) else text for text in inputs])[1]
        for (n, _), row in zip(pairs, self._encode_pairs([pair for _, pair in pairs])[0], strict=True):
            rows[n] = row
        return rows

    def _encode_pairs(self, pairs: list[TextPair]) -> tuple[list[list[int]], list[bool]]:
        return self._pairs.encode(pairs) if self._pairs else self._encode_with_overflow([*pairs])

    def encode_with_truncation(self, texts: list[str]) -> tuple[list[list[int]], list[bool]]:
        """Return the token ids of each text, and whether it was truncated."""
        pairs = [text for text in texts if isinstance(text, TextPair)]
        if pairs and len(pairs) == len(texts):
            return self._encode_pairs(pairs)
        if pairs or self._words is None:
            return self._encode_with_overflow(texts)
        before, after, _ = self.special_tokens()
        most = self.max_length - len(before) - len(after)
        rows = self._words.encode(texts)
        ids = [[*before, *row[:most], *after] for row in rows]
        truncated = [len(row) > most for row in rows]
        for n in self._words.exceptions(texts):
            [ids[n]], [truncated[n]] = self._encode_with_overflow([texts[n]])
        return ids, truncated

    def _encode_with_overflow(self, texts: list[str]) -> tuple[list[list[int]], list[bool]]:
        encodings = self._rows.encodings(texts)
        ids = [encoding.ids for encoding in encodings]
        full = (len(row) == self.max_length for row in ids)
        # `overflowing` copies the rest of the text, so it is read only for rows of the full length.
        return ids, [is_full and bool(each.overflowing) for each, is_full in zip(encodings, full, strict=True)]

    def special_tokens(self) -> SpecialTokens:
        """Return the special tokens around a text, found by encoding one with and without them."""
        bare = self._backend.encode("a", add_special_tokens=False).ids
        ids = self._backend.encode("a").ids
        start = next(n for n in range(len(ids)) if ids[n : n + len(bare)] == bare)
        return SpecialTokens(ids[:start], ids[start + len(bare) :], self._backend.get_vocab_size())

    def encodes_pairs(self) -> bool:
        """Return True if the tokenizer separates the two texts of a pair by special tokens."""
        return len(self._backend.encode("a", "b").ids) > len(self._backend.encode("a b").ids)

    def pair_separator(self) -> int | None:
        """Return the token id that ends the first text of a pair; None if the second text has no type id of its own."""
        pair = self._backend.encode("a", "b")
        return int(pair.ids[pair.type_ids.index(1) - 1]) if 1 in pair.type_ids else None

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickle, (self._backend.to_str(), self.max_length)


@lru_cache(maxsize=2)
def _unpickle(text: str, max_length: int) -> TextTokenizer:
    """Rebuild a tokenizer in a worker. There is one worker per core, so it encodes on a single thread."""
    import tokenizers

    tokenizer = TextTokenizer.__new__(TextTokenizer)
    tokenizer.max_length, tokenizer._batched = max_length, False
    tokenizer._backend = tokenizers.Tokenizer.from_str(text)
    tokenizer._prepare()
    return tokenizer


def tokenizer_folder(source: str) -> Path:
    """Return the local folder of a tokenizer or a base model. Raises DataError."""
    if scheme(source) == "hf://" or is_packaged(source):
        return base_folder(source)
    folder = local_path(source)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        names = f"{', '.join(TOKENIZER_FILES[:-1])} or {TOKENIZER_FILES[-1]}"
        what = f"base model or tokenizer {source} is not a folder with {names}"
        raise DataError(what, fix="set -s finetune.base=PATH or hf://NAME")
    return folder


def model_max_length(folder: Path) -> int | None:
    """Maximum number of tokens by config.json and tokenizer_config.json; None if neither has a limit."""
    config = _read_json(folder / "config.json")
    limits = [_settings(folder).get("model_max_length"), config.get("max_position_embeddings")]
    if limits[1] and config.get("model_type") in _OFFSET_MODELS:
        limits[1] -= 2
    # Tokenizers without a limit write 1e30.
    known = [int(limit) for limit in limits if limit and 0 < limit < 1e9]
    return min(known) if known else None


def check_length(folder: Path, max_length: int) -> None:
    """Raise DataError for a length that the model does not take."""
    limit = model_max_length(folder)
    if limit is not None and max_length > limit:
        what = f"max_length {max_length} is more than the {limit} tokens that the model in {folder} takes"
        raise DataError(what, fix=f"set -s preprocess.max_length={limit} or less")


def _settings(folder: Path) -> dict[str, Any]:
    return _read_json(folder / "tokenizer_config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
