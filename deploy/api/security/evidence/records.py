"""Evidence from the audit log: the log itself, backups, retention and forgotten subjects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from raypath.components.compliance.evidence import (
    AuditEvidence,
    BackupEvidence,
    ForgettingEvidence,
    RetentionEvidence,
)
from raypath.components.core.errors import RaypathError
from raypath.components.data.wording import plural
from raypath.components.encryption.vault import is_encrypted
from raypath.deploy.store.audit.anchors import ELSEWHERE
from raypath.deploy.store.audit.records import AuditRecord
from raypath.deploy.store.audit.verify import verify
from raypath.deploy.store.factory import open_store
from raypath.deploy.store.retention import apply, read_days
from raypath.deploy.store.store import SHARED

Log = Sequence[AuditRecord]


def audit_of(home: Path) -> AuditEvidence:
    """Verify the audit log."""
    place = os.environ.get(ELSEWHERE, "")
    try:
        found = verify(home, place)
    except RaypathError as error:
        return AuditEvidence(records=0, problems=(str(error),), elsewhere=place)
    problems = tuple(f"{each.where}: {each.what}" for each in found.problems)
    return AuditEvidence(records=found.records, problems=problems, anchors=found.anchors, elsewhere=place)


def backup_of(log: Log) -> BackupEvidence:
    """Return the last backup and its last verification."""
    made = _last(log, "backup.create", "ok")
    checks = [each for each in log if each.action == "backup.verify"]
    good = [each for each in checks if each.outcome == "ok" and not each.detail.get("problems")]
    verified = good[-1] if good else None
    last = next((each for each in reversed(log) if each.action in ("backup.create", "backup.verify")), None)
    if checks and checks[-1] is not verified and checks[-1] is last:
        problems = last.detail.get("problems")
        what = f"found {plural(problems, 'problem')}" if problems else last.outcome
        return _backup(made, verified, f"verification {what}")
    return _backup(made, verified, f"backup {last.outcome}" if last and last.outcome != "ok" else "")


def _backup(made: AuditRecord | None, verified: AuditRecord | None, failed: str) -> BackupEvidence:
    return BackupEvidence(
        place=made.target if made else "",
        made=made.time if made else None,
        verified=verified.time if verified else None,
        failed=failed,
    )


def retention_of(home: Path, log: Log, at: datetime) -> RetentionEvidence:
    """Return the retention times, and what is older. Raises PlatformError for a corrupt file."""
    days = read_days(home)
    applied = _last(log, "retention.apply", "ok")
    overdue = {}
    if days and "://" not in os.environ.get(SHARED, ""):
        found = apply(open_store(home), dry_run=True, now=at.timestamp())
        overdue = {each.kind: each.count for each in found if each.count}
    when = applied.time if applied else None
    return RetentionEvidence(days={**days}, unenforced=_not_plain(home), overdue=overdue, applied=when)


def forgetting_of(home: Path, log: Log) -> ForgettingEvidence:
    """Return the subjects that were forgotten, and those of which the last attempt failed."""
    last = {each.target: each for each in log if each.action == "subject.forget"}
    done = [each for each in last.values() if each.outcome == "ok"]
    return ForgettingEvidence(
        done=len(done),
        failed=len(last) - len(done),
        last=max((each.time for each in done), default=None),
        unsearchable=_not_plain(home),
    )


def _not_plain(home: Path) -> str:
    """Return why retention and forgetting cannot read the store's rows; "" for a folder in plaintext."""
    remote = os.environ.get(SHARED, "")
    if "://" in remote:
        return f"the store is in {remote}"
    return "the store is encrypted" if is_encrypted(home) else ""


def _last(log: Log, action: str, outcome: str) -> AuditRecord | None:
    return next((each for each in reversed(log) if (each.action, each.outcome) == (action, outcome)), None)
