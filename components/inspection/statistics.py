"""Statistics of all rows, collected in one pass over the texts: about 60 bytes a row in memory, the bands on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from raypath.components.core.arrays import Array
from raypath.components.core.labels import LabelKind
from raypath.components.inspection.minhash import BandFiles, signatures
from raypath.components.inspection.rows import Part, Places, tables_of
from raypath.components.inspection.texts import languages, personal_data, shapes
from raypath.components.inspection.texts.words import Words, split_words, text_hashes

SPLITS = ("", "train", "valid", "test")
SAMPLE_ROWS = 50_000
"""Rows of which the words are kept, to look for words that give a label away."""
Lengths = Callable[[list[str]], Array]
"""Function that returns the length of each text in tokens, int [N]."""


@dataclass(frozen=True)
class Statistics:
    """Arrays of N rows in the order of the stream.

    present: bool, false for a row without text or label, which has zeros elsewhere. texts: uint64, a hash. codes:
    int32, the class, index in `classes`, or the set as a whole, index in `sets`; -1 without labels. numbers:
    float64, the first target; None unless labels are numbers. splits: int8, index in SPLITS. words, lengths: int32;
    lengths are in tokens if there is a tokenizer, else in words. languages: uint8. personal: uint8, bits. shapes:
    float32 [N, 6].
    sample_rows, sample_words: rows and hashes of their distinct words, for rows of a random sample, [W] each.
    """

    places: Places
    bands: BandFiles
    label_kind: LabelKind
    classes: list[str]
    sets: list[tuple[str, ...]]
    present: Array
    texts: Array
    codes: Array
    numbers: Array | None
    splits: Array
    words: Array
    lengths: Array
    languages: Array
    personal: Array
    shapes: Array
    sample_rows: Array
    sample_words: Array
    names: dict[int, str] = field(default_factory=dict)
    """Words of the sample by their hash; empty unless texts are allowed."""

    @property
    def rows(self) -> int:
        return len(self.texts)

    def in_split(self, name: str) -> Array:
        """Return a mask of the rows of a split, bool [N]."""
        mask: Array = (self.splits == SPLITS.index(name)) & self.present
        return mask

    def class_rows(self, mask: Array | None = None) -> Array:
        """Rows of each class, int64 [K]: of all present rows, or of those in a mask."""
        codes = self.codes[self.present if mask is None else mask & self.present]
        codes = codes[codes >= 0]
        if self.label_kind is not LabelKind.SET:
            return np.bincount(codes, minlength=len(self.classes))
        number = {name: n for n, name in enumerate(self.classes)}
        found = np.zeros(len(self.classes), np.int64)
        for members, rows in zip(self.sets, np.bincount(codes, minlength=len(self.sets)), strict=True):
            found[[number[name] for name in members]] += rows
        return found


def collect(
    parts: Iterable[Part],
    folder: Path,
    count_tokens: Lengths | None = None,
    keep_words: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
    seed: int = 0,
) -> Statistics:
    """Read all parts once. folder: for the bands; keep_words: keep the words of the sample as text."""
    collector = _Collector(folder, count_tokens, keep_words, seed)
    with closing(collector.bands):
        for part, position, table in tables_of(parts, collector.places):
            collector.add(part, position, table)
            progress(table.num_rows)
    return collector.finish()


class _Collector:
    def __init__(self, folder: Path, count_tokens: Lengths | None, keep_words: bool, seed: int) -> None:
        self.places, self.bands = Places(), BandFiles(folder)
        self.count_tokens, self.keep_words = count_tokens, keep_words
        self.columns: dict[str, list[Array]] = {}
        self.classes: dict[str, int] = {}
        self.sets: dict[tuple[str, ...], int] = {}
        self.kind = LabelKind.NONE
        self.names: dict[int, str] = {}
        # A row is in the sample if its random number is below a limit, which halves when the sample is full.
        self.rng, self.limit, self.sampled = np.random.default_rng(seed), 1.0, 0
        self.sample: list[tuple[Array, Array, Array]] = []

    def add(self, part: Part, position: int, table: Any) -> None:
        """Add one table."""
        column = table["text"].combine_chunks().cast(pa.string())
        present = pc.is_valid(column).to_numpy(zero_copy_only=False)
        texts = pa.array(column.fill_null("")) if column.null_count else column
        words = split_words(texts)
        row_words = np.divmod(
            np.unique(words.rows * len(words.vocabulary) + words.codes), max(len(words.vocabulary), 1)
        )
        distinct = np.bincount(row_words[0], minlength=len(texts))
        arrays = {
            "present": present,
            "texts": text_hashes(texts),
            "splits": _splits(part, table),
            "words": words.counts.astype(np.int32),
            "languages": languages.language_codes(texts, words),
            "personal": personal_data.personal_data(texts),
            "shapes": shapes.shapes(texts, words.counts, distinct),
            **self._labels(table),
        }
        tokens = self.count_tokens(texts.to_pylist()) if self.count_tokens else words.counts
        arrays["lengths"] = np.asarray(tokens, np.int32)
        self.bands.add(signatures(words))
        self._sample(position, words, row_words, len(texts))
        for name, array in arrays.items():
            self.columns.setdefault(name, []).append(array)

    def _labels(self, table: Any) -> dict[str, Array]:
        if "label" not in table.column_names:
            return {"codes": np.full(table.num_rows, -1, np.int32)}
        label = table["label"].combine_chunks()
        if types.is_list(label.type) and types.is_floating(label.type.value_type):
            self.kind = LabelKind.NUMBER
            first = pc.list_element(label.fill_null([float("nan")]), 0).to_numpy(zero_copy_only=False)
            return {"codes": np.full(len(label), -1, np.int32), "numbers": first.astype(np.float64)}
        if types.is_list(label.type):
            self.kind = LabelKind.SET
            return {"codes": np.array([self._set(value) for value in label.to_pylist()], np.int32)}
        self.kind = LabelKind.CLASS
        encoded = pc.dictionary_encode(label)
        local = [self.classes.setdefault(name, len(self.classes)) for name in encoded.dictionary.to_pylist()]
        indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return {"codes": np.array([*local, -1], np.int32)[indices]}

    def _set(self, value: list[str] | None) -> int:
        if value is None:
            return -1
        for name in value:
            self.classes.setdefault(name, len(self.classes))
        return self.sets.setdefault(tuple(sorted(value)), len(self.sets))

    def _sample(self, position: int, words: Words, row_words: tuple[Array, Array], size: int) -> None:
        drawn = self.rng.random(size)
        chosen = drawn[row_words[0]] < self.limit
        rows, codes = row_words[0][chosen], row_words[1][chosen]
        self.sample.append(((rows + position).astype(np.uint32), words.hashes[codes], drawn[rows].astype(np.float32)))
        if self.keep_words:
            self.names.update(
                (int(words.hashes[code]), words.vocabulary[code])
                for code in np.unique(codes)
                if int(words.hashes[code]) not in self.names
            )
        self.sampled += int((drawn < self.limit).sum())
        if self.sampled > SAMPLE_ROWS:
            self.limit, self.sampled = self.limit / 2, self.sampled // 2
            kept = [(r, w, d, d < self.limit) for r, w, d in self.sample]
            self.sample = [(r[mask], w[mask], d[mask]) for r, w, d, mask in kept]

    def finish(self) -> Statistics:
        """Join the arrays of all tables."""
        empty = {name: np.zeros(0, dtype) for name, dtype in _TYPES.items()} | {"shapes": np.zeros((0, 6), np.float32)}
        joined = {name: np.concatenate(self.columns[name]) if name in self.columns else empty[name] for name in empty}
        numbers = np.concatenate(self.columns["numbers"]) if "numbers" in self.columns else None
        sampled = [np.concatenate([each[n] for each in self.sample]) if self.sample else np.zeros(0) for n in (0, 1)]
        return Statistics(
            self.places,
            self.bands,
            self.kind,
            list(self.classes),
            list(self.sets),
            numbers=numbers,
            sample_rows=sampled[0],
            sample_words=sampled[1],
            names=self.names,
            **joined,
        )


_TYPES: dict[str, Any] = {
    "present": bool,
    "texts": np.uint64,
    "codes": np.int32,
    "splits": np.int8,
    "words": np.int32,
    "lengths": np.int32,
    "languages": np.uint8,
    "personal": np.uint8,
}


def _splits(part: Part, table: Any) -> Array:
    if part.split or "split" not in table.column_names:
        return np.full(table.num_rows, SPLITS.index(part.split), np.int8)
    code = {name: n for n, name in enumerate(SPLITS)}
    return np.array([code.get(name or "", 0) for name in table["split"].to_pylist()], np.int8)
