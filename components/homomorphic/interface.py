"""Description of a version for clients that encrypt, as GET /encrypted returns it. pydantic only."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from raypath.components.models.metadata import ModelMetadata


class EncryptedInterface(BaseModel):
    """Facts that a client needs to send encrypted features to a version."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model: str
    version: int
    protocol: int
    """Version of parameters and formats (`parameters.PROTOCOL`)."""
    metadata: ModelMetadata
    """Task, labels, columns and maximum length."""
    encoder: str
    """SHA-256 of the encoder's weights; the client's has to be equal."""
    tokenizer: str
    """SHA-256 of the tokenizer's files."""
    width: int
    """Features of a text."""
    classes: int
    """Scores of a text."""
    largest_feature: float
    """Largest absolute value of a feature."""
    max_texts: int
    """Texts in a request."""
    max_bytes: int
    """Bytes of a request."""


class StoredKeys(BaseModel):
    """Response to an upload of evaluation keys."""

    keys: str
    """Their SHA-256, by which requests name them."""
    expires_after: float
    """Seconds without a request after which they are deleted."""
