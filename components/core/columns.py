"""Columns of a dataset and of a model: each has a name, a kind and a role; and the redaction of the inputs."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

TEXT = "text"
"""Stored name of the only input column of a dataset with a single text."""
INPUT_PREFIX = "input."
"""Prefix of the stored names of input columns where there are several, so that no other column has their names."""
SLICE_PREFIX = "slices."
"""Prefix of the stored names of columns by which an evaluation is divided, and that no model reads."""

InputForm = Literal["text", "pair", "fields"]
"""Form in which a text encoder reads the inputs of a row: a single text; two texts as the tokenizer's pair; or all
columns as lines with their names, "title: ..."."""


class Role(StrEnum):
    """Role of a column: what it is used for."""

    INPUT = "input"
    TARGET = "target"
    SPLIT = "split"
    GROUP = "group"
    ID = "id"
    TIME = "time"
    WEIGHT = "weight"
    SLICE = "slice"


class Column(BaseModel):
    """A column.

    name: in the user's data. kind: a name in data/columns/catalog.py, or package.module:Class. stored: name in the
    files of a Dataset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str = "text"
    role: Role = Role.INPUT
    stored: str = TEXT


Replacement = Literal["type", "mask", "hash", "surrogate"]
"""Form of what stands in place of personal data: its kind, as in <EMAIL>; asterisks; a keyed hash, as in <EMAIL:3f09>;
or made-up data of the same kind, the same for the same data."""
Language = Literal["en", "zh"]
"""Language of a model that finds names: English or Chinese."""


class Redaction(BaseModel):
    """Settings of a redaction and the version of its recognisers: equal ones redact a text equally."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    version: int
    """Version of the recognisers (privacy/recogniser.py)."""
    kinds: tuple[str, ...] = Field(strict=False)
    """Kinds of personal data that are replaced."""
    replacement: Replacement = "type"
    names: tuple[Language, ...] = Field(default=(), strict=False)
    """Languages of the models that find names, addresses and organisations."""
    key: str = ""
    """Id of the key of a hash or of surrogates, the first 16 hex digits of its SHA-256; "" without a key."""


def inputs_of(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Return the input columns; a single text named `text` for a model or dataset that lists no columns."""
    found = tuple(column for column in columns if column.role is Role.INPUT)
    return found or (Column(name=TEXT),)


def is_single_text(columns: Iterable[Column]) -> bool:
    """Return True if the only input is the text column `text`, which requests send without naming it."""
    return [column.stored for column in inputs_of(columns)] == [TEXT]
