"""Class labels: infer their type (strings, integers or booleans) over all rows and files, and collect the classes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.errors import DataError
from raypath.components.core.labels import LabelKind
from raypath.components.data.columns.numeric import NUMBER_PATTERN

MAX_CLASSES = 1_000
UNTYPED, FLOAT = "text", "float"
"""Types of a value in the column `kind` beside those of LabelKind: text of a format without types (CSV), and a
fraction, which cannot be a class."""
# "007" is a string: as an integer it would lose its zeros.
_INTEGER_PATTERN = re.compile(r"-?(0|[1-9]\d*)(\.0*)?")


class ClassCollector:
    """Collect the distinct labels by the type of their values; at most 1,000 are kept in memory."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._labels: dict[str, set[str]] = {}

    def add(self, table: pa.Table) -> None:
        """Add the columns `label` and `kind` of a table. Raises DataError beyond 1,000 classes."""
        for kind in pc.unique(table["kind"]).drop_null().to_pylist():
            chosen = table["label"].filter(pc.equal(table["kind"], kind))
            self._labels.setdefault(kind, set()).update(pc.unique(chosen).to_pylist())
        self._check_count()

    def state(self) -> dict[str, list[str]]:
        """Return the labels by type, as JSON can hold them."""
        return {kind: sorted(labels) for kind, labels in self._labels.items()}

    def merge(self, state: dict[str, list[str]]) -> None:
        """Add the labels of another collector. Raises DataError beyond 1,000 classes."""
        for kind, labels in state.items():
            self._labels.setdefault(kind, set()).update(labels)
        self._check_count()

    def _check_count(self) -> None:
        if sum(map(len, self._labels.values())) > MAX_CLASSES:
            raise self._too_many()

    def resolve(self) -> tuple[LabelKind, dict[str, str]]:
        """Return the kind of all labels, and the labels to rewrite: as read to normalized.

        Raises DataError for mixed types and for fractions.
        """
        untyped = self._labels.get(UNTYPED, set())
        kinds = {kind for kind in self._labels if kind != UNTYPED}
        if FLOAT in kinds and kinds <= {LabelKind.INT, FLOAT}:
            raise self._regression()
        if len(kinds) > 1:
            raise self._mixed(kinds)
        kind = LabelKind(next(iter(kinds))) if kinds else self._infer(untyped)
        if untyped and kind is not LabelKind.STRING and kind is not self._infer(untyped):
            raise self._mixed({kind, self._infer(untyped)})
        changes = {label: _normalize(label, kind) for label in untyped}
        return kind, {old: new for old, new in changes.items() if old != new}

    def _infer(self, labels: Iterable[str]) -> LabelKind:
        """Infer the kind of labels that were read as text."""
        labels = list(labels)
        if labels and all(_INTEGER_PATTERN.fullmatch(label) for label in labels):
            return LabelKind.INT
        if labels and all(NUMBER_PATTERN.fullmatch(label) for label in labels):
            if any(not float(label).is_integer() for label in labels):
                raise self._regression()
            return LabelKind.STRING
        boolean = labels and all(label.lower() in ("true", "false") for label in labels)
        return LabelKind.BOOL if boolean else LabelKind.STRING

    def _too_many(self) -> DataError:
        if all(NUMBER_PATTERN.fullmatch(label) for labels in self._labels.values() for label in labels):
            return self._regression()
        what = f"column {self.column} has more than {MAX_CLASSES:,} distinct labels; wanted 2 to {MAX_CLASSES:,}"
        return DataError(what, fix="name the label column with -s read.label=")

    def _regression(self) -> DataError:
        what = f"column {self.column} looks like a regression target: fractions, or over {MAX_CLASSES:,} numbers"
        fix = "set -s read.kind=number to predict numbers, or name a column of classes"
        return DataError(f"{what}; wanted classes", fix=fix)

    def _mixed(self, kinds: set[str]) -> DataError:
        found = " and ".join(sorted(kinds))
        return DataError(f"column {self.column} mixes {found} labels; wanted one type", fix="write all as strings")


def _normalize(label: str, kind: LabelKind) -> str:
    if kind is LabelKind.INT:
        return str(int(label.split(".")[0]))
    return label.lower() if kind is LabelKind.BOOL else label


class SetCollector:
    """Collect the classes of label sets and count the empty sets; at most 1,000 classes are kept in memory."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.empty = 0
        self._classes: set[str] = set()

    def add(self, table: pa.Table) -> None:
        """Add the column `label` of a table. Raises DataError beyond 1,000 classes."""
        self._classes.update(pc.unique(pc.list_flatten(table["label"])).to_pylist())
        self.empty += pc.sum(pc.equal(pc.list_value_length(table["label"]), 0)).as_py() or 0
        self._check_count()

    def state(self) -> dict[str, Any]:
        """Return the classes and the number of empty sets, as JSON can hold them."""
        return {"classes": sorted(self._classes), "empty": self.empty}

    def merge(self, state: dict[str, Any]) -> None:
        """Add what another collector found. Raises DataError beyond 1,000 classes."""
        self._classes.update(state["classes"])
        self.empty += state["empty"]
        self._check_count()

    def _check_count(self) -> None:
        if len(self._classes) > MAX_CLASSES:
            what = f"column {self.column} has more than {MAX_CLASSES:,} distinct classes in its sets"
            fix = "name the label column with -s read.label=, or the separator of classes with -s read.separator="
            raise DataError(f"{what}; wanted 2 to {MAX_CLASSES:,}", fix=fix)


def sort_labels(labels: Iterable[str], kind: LabelKind) -> tuple[str, ...]:
    """Sort integer labels by value, all others by code point."""
    return tuple(sorted(labels, key=int)) if kind is LabelKind.INT else tuple(sorted(labels))
