"""What the labels of a dataset are: words, whole numbers, booleans, or sets. Settled over all rows, never per file."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from raypath.components.core.errors import DataError

MAX_CLASSES = 1_000
# "007" is a name: as a number it would lose its zeros.
_WHOLE = re.compile(r"-?(0|[1-9]\d*)(\.0*)?")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Labels:
    """Collects the distinct labels and what they were; holds at most a thousand."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._seen: dict[str, set[str]] = {}

    def add(self, table: pa.Table) -> None:
        """Take the columns `label` and `kind`. Raises DataError beyond 1,000 classes."""
        for kind in pc.unique(table["kind"]).drop_null().to_pylist():
            chosen = table["label"].filter(pc.equal(table["kind"], kind))
            self._seen.setdefault(kind, set()).update(pc.unique(chosen).to_pylist())
        if sum(map(len, self._seen.values())) > MAX_CLASSES:
            raise self._too_many()

    def settle(self) -> tuple[str, dict[str, str]]:
        """(label kind, label as read -> label as kept, where they differ). Raises DataError for mixed types."""
        untyped = self._seen.get("text", set())
        kinds = {kind for kind in self._seen if kind != "text"}
        if "float" in kinds and kinds <= {"int", "float"}:
            raise self._regression()
        if len(kinds) > 1:
            raise self._mixed(kinds)
        kind = next(iter(kinds), "") or self._kind_of(untyped)
        if untyped and kind != "string" and kind != self._kind_of(untyped):
            raise self._mixed({kind, self._kind_of(untyped)})
        changes = {label: _canonical(label, kind) for label in untyped}
        return kind, {old: new for old, new in changes.items() if old != new}

    def _kind_of(self, labels: Iterable[str]) -> str:
        """What labels are that come without types."""
        labels = list(labels)
        if labels and all(_WHOLE.fullmatch(label) for label in labels):
            return "int"
        if labels and all(_NUMBER.fullmatch(label) for label in labels):
            if any(not float(label).is_integer() for label in labels):
                raise self._regression()
            return "string"
        return "bool" if labels and all(label.lower() in ("true", "false") for label in labels) else "string"

    def _too_many(self) -> DataError:
        if all(_NUMBER.fullmatch(label) for labels in self._seen.values() for label in labels):
            return self._regression()
        what = f"column {self.column} has more than {MAX_CLASSES:,} different labels; wanted 2 to {MAX_CLASSES:,}"
        return DataError(what, fix="name the label column with -s read.label=")

    def _regression(self) -> DataError:
        what = f"column {self.column} looks like a regression target: fractions, or over {MAX_CLASSES:,} numbers"
        fix = "set -s read.kind=number to predict numbers, or name a column of classes"
        return DataError(f"{what}; wanted classes", fix=fix)

    def _mixed(self, kinds: set[str]) -> DataError:
        found = " and ".join(sorted(kinds))
        return DataError(f"column {self.column} mixes {found} labels; wanted one type", fix="write all as words")


def _canonical(label: str, kind: str) -> str:
    if kind == "int":
        return str(int(label.split(".")[0]))
    return label.lower() if kind == "bool" else label


class Sets:
    """Collects the classes of sets; holds at most a thousand. empty: the rows without a class."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.empty = 0
        self._seen: set[str] = set()

    def add(self, table: pa.Table) -> None:
        """Take the column `label`. Raises DataError beyond 1,000 classes."""
        self._seen.update(pc.unique(pc.list_flatten(table["label"])).to_pylist())
        self.empty += pc.sum(pc.equal(pc.list_value_length(table["label"]), 0)).as_py() or 0
        if len(self._seen) > MAX_CLASSES:
            what = f"column {self.column} has more than {MAX_CLASSES:,} different classes in its sets"
            fix = "name the label column with -s read.label=, or what stands between classes with -s read.separator="
            raise DataError(f"{what}; wanted 2 to {MAX_CLASSES:,}", fix=fix)


def sort_labels(labels: Iterable[str], kind: str) -> tuple[str, ...]:
    """Numbers by value, all else by code point."""
    return tuple(sorted(labels, key=int)) if kind == "int" else tuple(sorted(labels))
