"""Statements of persons in a home: a signed file each, of which the audit log has the digest.

compliance/TOPIC.json    the latest statement on a topic
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from raypath.components.compliance.evidence import StatementEvidence
from raypath.components.compliance.regime import topics
from raypath.components.compliance.statements import verify
from raypath.components.registry.signing.keys import trusted_keys
from raypath.deploy.store.audit.records import AuditRecord

FOLDER = "compliance"
ACTION = "comply.state"


def file_of(home: Path, topic: str) -> Path:
    """Return the file of the statement on a topic."""
    return home / FOLDER / f"{topic}.json"


def statements_of(home: Path, log: Sequence[AuditRecord], at: datetime) -> dict[str, StatementEvidence]:
    """Return the verified statements by topic. One that the audit log has and that is gone is rejected."""
    recorded = {
        each.target: str(each.detail.get("digest", "")) for each in log if (each.action, each.outcome) == (ACTION, "ok")
    }
    keys, found = trusted_keys(home / "signing"), {}
    for topic in topics():
        file = file_of(home, topic)
        if not file.is_file():
            if recorded.get(topic):
                found[topic] = StatementEvidence(state="rejected", reason=f"{file} is missing")
            continue
        try:
            signed = json.loads(file.read_bytes())
        except (OSError, ValueError):
            found[topic] = StatementEvidence(state="rejected", reason=f"{file} cannot be read")
            continue
        found[topic] = verify(signed, topic, recorded.get(topic, ""), keys, home.parent, at)
    return found
