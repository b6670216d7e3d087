"""Signed statements of persons: what no check can find out. A DSSE envelope over topic, text, author and validity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from raypath.components.compliance.evidence import StatementEvidence
from raypath.components.core.files import file_digest
from raypath.components.registry.signing import envelope
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import PublicKey, SigningKey

TYPE = "application/vnd.raypath.statement+json"


class Statement(BaseModel):
    """Statement of a person on a topic."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    topic: str
    text: Annotated[str, Field(min_length=10, max_length=4_000)]
    by: Annotated[str, Field(min_length=2, max_length=100)]
    """Name of the person, as given; the audit log has the account."""
    signed: AwareDatetime
    until: AwareDatetime
    """Time from which it has to be made again."""
    document: str = ""
    """Path of the file that it is about, relative to the folder of the home."""
    document_digest: str = ""
    """SHA-256 of that file."""


def sign(key: SigningKey, statement: Statement) -> dict[str, Any]:
    """Return the envelope of a statement."""
    return envelope.sign(key, TYPE, envelope.dumps(statement.model_dump(mode="json")))


def digest_of(signed: Any) -> str:
    """Return the SHA-256 of an envelope, by which the audit log names it."""
    return hashlib.sha256(envelope.dumps(signed)).hexdigest()


def verify(
    signed: Any, topic: str, recorded: str, keys: Mapping[str, PublicKey], folder: Path, now: datetime
) -> StatementEvidence:
    """Return the statement with its state.

    Args:
        recorded: Digest of the latest statement on the topic in the audit log; "" for none.
        folder: Folder to which the path of a document is relative.
    """
    try:
        found = Statement.model_validate_json(envelope.verify(signed, TYPE, keys))
    except Untrusted as error:
        return StatementEvidence(state="rejected", reason=f"it {error}")
    except ValidationError:
        return StatementEvidence(state="rejected", reason="it has another content")
    if found.topic != topic:
        return _rejected(found, f"it is about {found.topic}")
    if digest_of(signed) != recorded:
        return _rejected(found, "it is not the latest statement on this topic in the audit log")
    if found.document and (what := _changed(folder / found.document, found.document_digest)):
        return _rejected(found, f"{found.document} {what}")
    return _evidence(found, "expired" if found.until <= now else "valid")


def _changed(file: Path, digest: str) -> str:
    try:
        return "" if file_digest(file) == digest else "was changed after it was signed"
    except OSError:
        return "is missing"


def _rejected(found: Statement, reason: str) -> StatementEvidence:
    return _evidence(found, "rejected", reason)


def _evidence(found: Statement, state: Any, reason: str = "") -> StatementEvidence:
    fields = found.model_dump(include={"text", "by", "signed", "until", "document"})
    return StatementEvidence(state=state, reason=reason, **fields)
