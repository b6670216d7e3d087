"""Records of the audit log, and the hash that chains them."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

LOG = "log.jsonl"
GENESIS = "0" * 64
"""Hash before the first record."""


def folder_of(home: Path) -> Path:
    """Return the folder of the audit log of a home."""
    return home / "audit"


class Actor(BaseModel):
    """Account of the process that acted, not a claim of its user."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str
    uid: int
    sudo_user: str = ""
    """Account that called sudo."""
    host: str
    program: str
    """Name of the program, such as `raypath` or `python`."""


class AuditRecord(BaseModel):
    """One line of the log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    """Number of the record, from 1."""
    time: AwareDatetime
    actor: Actor
    action: str
    """Such as `model.promote` or `key.create`."""
    target: str
    """What was acted on, such as `reviews/3`."""
    outcome: str
    """`ok`, `stopped`, or `failed: ERROR`."""
    detail: dict[str, Any] = {}
    """Names and numbers; no texts of users and no secrets."""
    previous: str
    """Hash of the record before."""
    hash: str = ""
    """SHA-256 of this record without this field, as canonical JSON."""

    def digest(self) -> str:
        """Return the hash that the record must have."""
        return digest_of(self.model_dump(mode="json"))

    def line(self) -> bytes:
        """Return the record as a line of the log."""
        return canonical(self.model_dump(mode="json")) + b"\n"


class Head(BaseModel):
    """End of the log."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    log: str = ""
    """Id of the log: the hash of its first record, shortened."""
    n: int = 0
    hash: str = GENESIS
    size: int = 0
    """Bytes of the log."""
    day: str = ""
    """Day of the last record, UTC."""

    def after(self, record: AuditRecord, size: int) -> Head:
        """Return the end of the log after one more record. size: bytes of the log with it."""
        log = self.log or log_id(record.hash)
        return Head(log=log, n=record.n, hash=record.hash, size=size, day=f"{record.time:%Y-%m-%d}")


def log_id(first_hash: str) -> str:
    """Return the id of the log that begins with a record of this hash."""
    return first_hash[:16]


def canonical(value: Any) -> bytes:
    """Return canonical JSON: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(fields: dict[str, Any]) -> str:
    """Return the hash of a record's fields. Fields of a later Raypath count too."""
    return hashlib.sha256(canonical({name: value for name, value in fields.items() if name != "hash"})).hexdigest()


def new_record(
    number: int, previous: str, action: str, target: str, outcome: str, detail: dict[str, Any]
) -> AuditRecord:
    """Return a record of this moment and this process, with its hash.

    Bytes of a path or an argument that are no UTF-8 are written as escapes.
    """
    made = AuditRecord(
        n=number,
        time=datetime.now(UTC),
        actor=this_actor(),
        action=action,
        target=_encodable(target),
        outcome=outcome,
        detail=_encodable(detail),
        previous=previous,
    )
    return made.model_copy(update={"hash": made.digest()})


def _encodable(value: Any) -> Any:
    """Return a value of JSON whose texts can be encoded."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(name): _encodable(each) for name, each in value.items()}
    return [_encodable(each) for each in value] if isinstance(value, list | tuple) else value


def this_actor() -> Actor:
    """Return the account that this process runs as."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account without a name, as in many containers
        user = ""
    program = _encodable(Path(sys.argv[0] if sys.argv else "").name or "python")
    return Actor(
        user=user,
        uid=os.getuid(),
        sudo_user=os.environ.get("SUDO_USER", ""),
        host=socket.gethostname(),
        program=program,
    )
