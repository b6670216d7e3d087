"""Evidence about a project, as plain values: what the checks look at.

`raypath.deploy.api.security.evidence` collects it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

TIED_TO_PERSONS = frozenset({"email", "phone", "card", "iban", "resident_id"})
"""Kinds of the data report that count as personal data; addresses of pages and machines alone do not."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


class RunEvidence(_Model):
    """Latest completed run of a workflow and a model."""

    id: str
    workflow: str
    ended: datetime
    settings: dict[str, Any]
    """By dotted key."""
    cluster: bool = False
    endpoint: str = ""
    """Name of the endpoint that it put in service."""
    language_model: bool = False
    champion: bool = True
    """Its endpoint serves the version that it trained, and not an earlier one that is better."""
    reads_data: bool = False
    """Its workflow reads rows of the user's."""
    data_rows: int | None = None
    """Rows that the data report looked at; None without a data report."""
    data_errors: int = 0
    """Errors in the data report."""
    personal_data: dict[str, int] = {}
    """Rows of the data report by kind of personal data."""
    test_rows: int | None = None
    """Rows of the evaluation; None without one."""
    metrics: dict[str, float] = {}
    confidence: bool = False
    """The evaluation shows the accuracy by confidence, or by threshold."""
    slices: int = 0
    """Slices that the evaluation compared."""
    worse: tuple[str, ...] = ()
    """Slices that are worse than the rest."""

    @property
    def found_persons(self) -> dict[str, int]:
        """Rows by kind of personal data, without addresses of pages and machines."""
        return {kind: rows for kind, rows in self.personal_data.items() if kind in TIED_TO_PERSONS and rows}


class KeyEvidence(_Model):
    """Active API key."""

    name: str
    scopes: tuple[str, ...]
    expires: datetime | None


class VersionEvidence(_Model):
    """Registered version."""

    name: str
    version: int
    champion: bool
    problem: str = ""
    """Reason for which its signature is not valid; "" for a valid one."""
    previous: int = 0
    """Champion before it; 0 for none."""
    described: bool = False
    """The registry has a description with task, base, data and metrics."""
    card: str = ""
    """Model card: file, or folder of the export with it."""
    forgotten: int = 0
    """Subjects in its training data that are forgotten since."""


class AuditEvidence(_Model):
    """Audit log."""

    records: int
    problems: tuple[str, ...] = ()
    anchors: int = 0
    elsewhere: str = ""
    """Place of copies of the anchors; "" for none."""


class BackupEvidence(_Model):
    """Backups, by the audit log."""

    place: str = ""
    """Of the last one; "" where none was made."""
    made: datetime | None = None
    verified: datetime | None = None
    """Time of the last verification without problems."""
    failed: str = ""
    """How a later backup or verification failed; "" where none did."""


class StoreEvidence(_Model):
    """Files of the home, and of a shared store."""

    place: str
    encrypted: bool | None
    """False where only a part is; None where it is not known."""
    encryption: str
    """How that is known, in one sentence without a full stop."""
    open_files: tuple[str, ...] = ()
    """Some files that other users of the machine may read."""


class RetentionEvidence(_Model):
    """Retention times."""

    days: dict[str, int]
    """By kind; a kind that is not named is kept."""
    unenforced: str = ""
    """Why artifacts are not deleted; "" where they are."""
    overdue: dict[str, int] = {}
    """Files by kind that are older than that and still there."""
    applied: datetime | None = None
    """Time of the last deletion in the audit log."""


class ForgettingEvidence(_Model):
    """Requests to forget a subject, by the audit log."""

    done: int = 0
    failed: int = 0
    """Subjects of which the last attempt failed."""
    last: datetime | None = None
    unsearchable: str = ""
    """Why rows of the store cannot be searched; "" where they can."""


class StatementEvidence(_Model):
    """Signed statement on a topic, verified."""

    state: Literal["valid", "expired", "rejected"]
    reason: str = ""
    """Why it is rejected."""
    text: str = ""
    by: str = ""
    signed: datetime | None = None
    until: datetime | None = None
    document: str = ""
    """Path of the file that it is about."""


class Evidence(_Model):
    """All evidence about a project at a time."""

    home: str
    at: datetime
    runs: tuple[RunEvidence, ...] = ()
    keys: tuple[KeyEvidence, ...] = ()
    issuers: int = 0
    """Trusted issuers of tokens."""
    versions: tuple[VersionEvidence, ...] | None = None
    """None where the registry cannot be read."""
    listener: str = ""
    """Public listener of the endpoints, as `0.0.0.0:443`; "" for this machine alone."""
    listener_tls: bool = False
    audit: AuditEvidence
    backup: BackupEvidence
    store: StoreEvidence
    retention: RetentionEvidence
    forgetting: ForgettingEvidence
    statements: dict[str, StatementEvidence] = {}
    """By topic."""

    @property
    def served(self) -> list[RunEvidence]:
        """Runs that put an endpoint in service."""
        return [run for run in self.runs if run.endpoint]

    @property
    def generates(self) -> list[RunEvidence]:
        """Runs of language models."""
        return [run for run in self.runs if run.language_model]

    @property
    def champions(self) -> list[VersionEvidence]:
        """Versions in service."""
        return [each for each in self.versions or () if each.champion]
