"""Kinds of labels: the one vocabulary that datasets, models, tasks and endpoints share."""

from __future__ import annotations

from enum import StrEnum


class LabelKind(StrEnum):
    """Kind of the labels of a dataset or a model.

    A row has one class (`STRING`, `INT` and `BOOL` name the type that the class has in the user's data; `CLASS` stands
    for any of them), a set of classes (`SET`), one or more numbers (`NUMBER`), or no label (`NONE`).
    """

    CLASS = "class"
    STRING = "string"
    INT = "int"
    BOOL = "bool"
    SET = "set"
    NUMBER = "number"
    NONE = "none"

    @property
    def general(self) -> LabelKind:
        """`CLASS` for the typed kinds of a single class, else the kind itself; equal to the setting `read.kind`."""
        return LabelKind.CLASS if self in SINGLE_CLASS else self

    def restore(self, label: str) -> str | int | bool:
        """Convert a stored label to its type in the user's data: "3" to 3 for `INT`, "true" to True for `BOOL`."""
        if self is LabelKind.INT:
            return int(label)
        return label == "true" if self is LabelKind.BOOL else label


SINGLE_CLASS = frozenset({LabelKind.CLASS, LabelKind.STRING, LabelKind.INT, LabelKind.BOOL})
"""Kinds of rows that have one class each."""
