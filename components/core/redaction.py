"""Facts on the redaction of texts: they go with a dataset, and with the model that was trained on it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
