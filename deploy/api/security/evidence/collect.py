"""Collect all evidence about a project."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from raypath.components.compliance.evidence import Evidence
from raypath.components.core.errors import UserError
from raypath.deploy.api.security.evidence import protection, records, registry, runs, stated
from raypath.deploy.local import state
from raypath.deploy.store.audit.log import read


def collect(home: Path, at: datetime | None = None) -> Evidence:
    """Return the evidence about the project of a home. Raises UserError for a folder that is no home, PlatformError."""
    if not home.is_dir():
        raise UserError(f"there is no home {home}", fix="set RAYPATH_HOME, or run a workflow first")
    at = at or datetime.now(UTC)
    log = list(read(home))
    listener = state.read(home).public_bind
    keys, issuers = protection.keys_of(home, at)
    return Evidence(
        home=str(home),
        at=at,
        runs=tuple(runs.runs_of(home)),
        keys=tuple(keys),
        issuers=issuers,
        versions=registry.versions_of(home, log),
        listener=listener.partition(" ")[0],
        listener_tls=" ssl " in f"{listener} ",
        audit=records.audit_of(home),
        backup=records.backup_of(log),
        store=protection.store_of(home),
        retention=records.retention_of(home, log, at),
        forgetting=records.forgetting_of(home, log),
        statements=stated.statements_of(home, log, at),
    )
