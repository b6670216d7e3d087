"""Statistics of all rows. Their columns are in files: memory grows by the columns that a finding reads at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.labels import LabelKind
from raypath.components.inspection.collection.column_files import ColumnFiles
from raypath.components.inspection.collection.sample import Sample
from raypath.components.inspection.rows import Places

SPLITS = ("", "train", "valid", "test")


@dataclass(frozen=True)
class Statistics:
    """Values of N rows in the order of the stream; each property reads a file."""

    files: ColumnFiles
    rows: int
    places: Places
    label_kind: LabelKind
    classes: list[str]
    sets: list[tuple[str, ...]]
    """Distinct sets of classes; each is sorted."""
    sample: Sample

    @property
    def present(self) -> Array:
        """False for a row without text or label, whose other values are those of an empty text, bool [N]."""
        return self.files.read("present")

    @property
    def texts(self) -> Array:
        """Hashes of the texts, uint64 [N]."""
        return self.files.read("texts")

    @property
    def codes(self) -> Array:
        """Index in `classes` of the class, or in `sets` of the set; -1 without labels. int32 [N]."""
        return self.files.read("codes")

    @property
    def numbers(self) -> Array:
        """First target, float64 [N]; no values unless labels are numbers."""
        return self.files.read("numbers")

    @property
    def splits(self) -> Array:
        """Index in SPLITS, int8 [N]."""
        return self.files.read("splits")

    @property
    def words(self) -> Array:
        """Words of each text, int32 [N]."""
        return self.files.read("words")

    @property
    def lengths(self) -> Array:
        """Tokens of each text if there is a tokenizer, else words, int32 [N]."""
        return self.files.read("lengths")

    @property
    def languages(self) -> Array:
        """Index of the language, uint8 [N]."""
        return self.files.read("languages")

    @property
    def personal(self) -> Array:
        """Kinds of personal data as bits, uint8 [N]."""
        return self.files.read("personal")

    @property
    def messages(self) -> Array:
        """Messages of each conversation, int32 [N]; no values for rows that are no conversations, as those below."""
        return self.files.read("messages")

    @property
    def has_conversations(self) -> bool:
        """True if the rows are conversations or preferences."""
        return bool(self.messages.any())

    def messages_of(self, role: str) -> Array:
        """Return the messages of a role in each conversation, int32 [N]."""
        return self.files.read(f"role-{role}")

    @property
    def traits(self) -> Array:
        """Traits of conversations as bits, uint8 [N]."""
        return self.files.read("traits")

    @property
    def prompts(self) -> Array:
        """Hashes of all messages before the last, uint64 [N]."""
        return self.files.read("prompts")

    @property
    def answers(self) -> Array:
        """Hashes of the last messages, uint64 [N]."""
        return self.files.read("answers")

    @property
    def answer_words(self) -> Array:
        """Words of the last messages, int32 [N]."""
        return self.files.read("answer_words")

    def shape(self, number: int) -> Array:
        """Return a value of the texts' shapes, float32 [N]."""
        return self.files.read(f"shape-{number}")

    def band(self, number: int) -> Array:
        """Return a band of the MinHash signatures, uint64 [N]."""
        return self.files.read(f"band-{number:02d}")

    def in_split(self, name: str) -> Array:
        """Return a mask of the rows of a split, bool [N]."""
        mask: Array = (self.splits == SPLITS.index(name)) & self.present
        return mask

    def class_rows(self, mask: Array | None = None) -> Array:
        """Rows of each class, int64 [K]: of all present rows, or of those in a mask."""
        present = self.present
        codes = self.codes[present if mask is None else mask & present]
        codes = codes[codes >= 0]
        if self.label_kind is not LabelKind.SET:
            return np.bincount(codes, minlength=len(self.classes))
        number = {name: n for n, name in enumerate(self.classes)}
        found = np.zeros(len(self.classes), np.int64)
        for members, rows in zip(self.sets, np.bincount(codes, minlength=len(self.sets)), strict=True):
            found[[number[name] for name in members]] += rows
        return found
