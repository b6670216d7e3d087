"""Collect the statistics of a stream of rows; memory holds a few MiB of texts at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from raypath.components.core.arrays import Array
from raypath.components.core.conversations import Conversation, Preference
from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.inspection.collection import sample as samples
from raypath.components.inspection.collection.column_files import ColumnFiles
from raypath.components.inspection.collection.sample import Sample
from raypath.components.inspection.minhash import BAND_ROWS, BANDS, signatures
from raypath.components.inspection.rows import Part, Places, tables_of
from raypath.components.inspection.statistics import SPLITS, Statistics
from raypath.components.inspection.texts import languages, personal_data, shapes
from raypath.components.inspection.texts.conversations import COLUMN, conversation_columns, stored
from raypath.components.inspection.texts.words import Words, split_words, text_hashes

if TYPE_CHECKING:
    from raypath.components.data.tokenization.tokenizer import TextTokenizer
    from raypath.components.models.chat_template import ChatTemplate

BYTES = 4 << 20
"""Bytes of text that are inspected at a time."""
CountTokens = Callable[[list[str]], Array]
"""Function that returns the length of each text in tokens, int [N]."""


@dataclass(frozen=True)
class TokenCounter:
    """Count tokens; with its tokenizer it is pickled to workers. template: of conversations."""

    tokenizer: TextTokenizer
    template: ChatTemplate | None = None

    def __call__(self, texts: list[str]) -> Array:
        """Return the number of tokens of each text, int32 [N]."""
        return np.array([len(ids) for ids in self.tokenizer.encode(texts)], np.int32)

    def conversations(self, rows: Sequence[Conversation | Preference], texts: list[str]) -> Array:
        """Return the number of tokens of each conversation as the template renders it, int32 [N].

        A preference has those of its longer answer. Texts are counted where the template rejects a conversation.
        """
        if self.template is None:
            return self(texts)
        both = [(each.with_chosen, each.with_rejected) if isinstance(each, Preference) else (each,) for each in rows]
        try:
            return np.array([max(len(ids) for ids, _ in self.template.encode_all(each)) for each in both], np.int32)
        except DataError:
            return self(texts)


def collect(
    parts: Iterable[Part],
    folder: Path,
    count_tokens: CountTokens | None = None,
    keep_words: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
    seed: int = 0,
) -> Statistics:
    """Read all parts once. folder: for the columns; keep_words: keep the words of the sample as text."""
    places = Places()
    with closing(Collector(folder, count_tokens, keep_words, seed)) as collector:
        for part, position, table in tables_of(parts, places):
            collector.add(table, len(places.sources), position - places.starts[-1], part.split)
            progress(table.num_rows)
    return collector.statistics(places)


class Collector:
    """Statistics of the rows that were added."""

    def __init__(self, folder: Path, count_tokens: CountTokens | None, keep_words: bool, seed: int) -> None:
        self.files, self.rows = ColumnFiles(folder), 0
        self.count_tokens, self.keep_words, self.seed = count_tokens, keep_words, seed
        self.classes: dict[str, int] = {}
        self.sets: dict[tuple[str, ...], int] = {}
        self.kind = LabelKind.NONE
        self.samples: list[Sample] = []
        self.limit, self.sampled = 1.0, 0

    def add(self, table: Any, source: int, first: int, split: str) -> None:
        """Add rows from number `first` of a source. split: of all rows; "" if the column `split` has it."""
        for piece in _pieces(table):
            self._add(piece, source, first, split)
            first += len(piece)

    def _add(self, table: Any, source: int, first: int, split: str) -> None:
        column = table["text"].combine_chunks().cast(pa.string())
        texts = pa.array(column.fill_null("")) if column.null_count else column
        words = split_words(texts)
        codes = np.unique(words.rows * len(words.vocabulary) + words.codes)
        row_words = np.divmod(codes, max(len(words.vocabulary), 1))
        distinct = np.bincount(row_words[0], minlength=len(texts))
        talks = [stored(value) for value in table[COLUMN].to_pylist()] if COLUMN in table.column_names else None
        tokens = self._lengths(texts, talks) if self.count_tokens else words.counts
        columns = {
            "present": pc.is_valid(column).to_numpy(zero_copy_only=False),
            "texts": text_hashes(texts),
            "splits": _splits(table, split),
            "words": words.counts,
            "lengths": tokens,
            "languages": languages.language_codes(texts, words),
            "personal": personal_data.personal_data(texts),
            **self._labels(table),
            **(conversation_columns(talks) if talks is not None else {}),
        }
        for n, shape in enumerate(shapes.shapes(texts, words.counts, distinct)):
            columns[f"shape-{n}"] = shape
        bands = signatures(words).reshape(-1, BANDS, BAND_ROWS)
        for n in range(BANDS):
            columns[f"band-{n:02d}"] = np.ascontiguousarray(bands[:, n]).view(np.uint64)
        for name, values in columns.items():
            self.files.append(name, values)
        self._sample(samples.draws(self.seed, source, first, len(texts)), words, row_words)
        self.rows += len(texts)

    def _lengths(self, texts: Any, talks: Sequence[Conversation | Preference] | None) -> Array:
        counter = self.count_tokens
        if talks is not None and isinstance(counter, TokenCounter):
            return counter.conversations(talks, texts.to_pylist())
        assert counter is not None
        return counter(texts.to_pylist())

    def _labels(self, table: Any) -> dict[str, Array]:
        if "label" not in table.column_names:
            return {"codes": np.full(table.num_rows, -1)}
        label = table["label"].combine_chunks()
        if types.is_list(label.type) and types.is_floating(label.type.value_type):
            self.kind = LabelKind.NUMBER
            first = pc.list_element(label.fill_null([float("nan")]), 0).to_numpy(zero_copy_only=False)
            return {"codes": np.full(len(label), -1), "numbers": first}
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

    def _sample(self, draws: Array, words: Words, row_words: tuple[Array, Array]) -> None:
        chosen = np.flatnonzero(draws < self.limit)
        inside = draws[row_words[0]] < self.limit
        of, codes = np.searchsorted(chosen, row_words[0][inside]), row_words[1][inside]
        names = (
            {int(words.hashes[code]): words.vocabulary[code] for code in np.unique(codes)} if self.keep_words else {}
        )
        self.samples.append(
            Sample(chosen + self.rows, draws[chosen], of.astype(np.int32), words.hashes[codes], self.limit, names)
        )
        self.sampled += len(codes)
        if self.sampled > samples.WORDS:
            self.samples = [samples.joined(self.samples)]
            self.limit, self.sampled = self.samples[0].limit, len(self.samples[0].words)

    def close(self) -> None:
        """Finish writing the columns."""
        self.files.close()

    def statistics(self, places: Places) -> Statistics:
        """Return the statistics of all rows, after `close`."""
        return Statistics(
            files=self.files,
            rows=self.rows,
            places=places,
            label_kind=self.kind,
            classes=list(self.classes),
            sets=list(self.sets),
            sample=samples.joined(self.samples),
        )


def _pieces(table: Any) -> Iterator[Any]:
    """Divide a table by the size of its texts."""
    rows = max(1, table.num_rows * BYTES // max(table["text"].nbytes, 1))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def _splits(table: Any, split: str) -> Array:
    if split or "split" not in table.column_names:
        return np.full(table.num_rows, SPLITS.index(split))
    code = {name: n for n, name in enumerate(SPLITS)}
    return np.array([code.get(name or "", 0) for name in table["split"].to_pylist()])
