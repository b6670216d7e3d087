"""Audit log of a home: one JSON record a line, each with the hash of the one before.

    audit/log.jsonl        the records
    audit/head.json        number and hash of the last record, and the size of the log
    audit/anchors.jsonl    signed: number and hash of the last record of each day (`audit.anchors`)

A record is flushed to disk before the action's result is returned. All files have mode 0600.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from raypath.components.core.errors import PlatformError
from raypath.components.core.files import locked, write_atomically
from raypath.deploy.store.audit.anchors import anchor
from raypath.deploy.store.audit.records import LOG, AuditRecord, Head, folder_of, new_record

_log = logging.getLogger("raypath.audit")


@contextmanager
def audited(home: Path, action: str, target: str, detail: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Record an action when it has ended, whatever its outcome. The caller may add to the yielded detail.

    A record on a model, `model.*`, has the tenant that the model belongs to.

    A home that does not exist has no log. Raises PlatformError before the action where the log cannot be written.
    """
    if home.is_dir():
        check_writable(home)
    found = dict(detail or {}) | _owner(home, action, target)
    try:
        yield found
    except Exception as error:
        record_end(home, action, target, f"failed: {type(error).__name__}", found)
        raise
    except BaseException:
        record_end(home, action, target, "stopped", found)
        raise
    record_end(home, action, target, "ok", found)


def _owner(home: Path, action: str, target: str) -> dict[str, str]:
    """Return the tenant that a model belongs to now, for the records on models."""
    from raypath.components.serving.metering.api_keys import KeyStore

    owner = KeyStore(home / "access").tenancy().owner(target.partition("/")[0]) if action.startswith("model.") else None
    return {"tenant": owner} if owner else {}


def record_end(home: Path, action: str, target: str, outcome: str, detail: Mapping[str, Any]) -> None:
    """Record how an action ended. A record that fails does not hide why the action failed; it is logged."""
    if not home.is_dir():
        return
    try:
        record(home, action, target, outcome, detail)
    except PlatformError as error:
        if outcome == "ok":
            raise
        _log.error("%s of %s (%s) has no record: %s", action, target, outcome, error)


def check_writable(home: Path) -> None:
    """Raise PlatformError unless a record could be appended."""
    with _writable(home):
        pass


def record(
    home: Path, action: str, target: str, outcome: str = "ok", detail: Mapping[str, Any] | None = None
) -> AuditRecord:
    """Append a record; the first of a day anchors the records before it. Raises PlatformError."""
    with _writable(home) as file:
        head = _recovered(read_head(home), file)
        if head.n and head.day != f"{datetime.now(UTC):%Y-%m-%d}":
            anchor(home, head)
        made = new_record(head.n + 1, head.hash, action, target, outcome, dict(detail or {}))
        file.write(made.line())
        file.flush()
        os.fsync(file.fileno())
        _write_head(home, head.after(made, file.tell()))
    return made


def anchor_now(home: Path) -> Head | None:
    """Anchor the last record; returns the end of the log, None where there are no records. Raises PlatformError."""
    if not (folder_of(home) / LOG).exists():
        return None
    with _writable(home) as file:
        head = _recovered(read_head(home), file)
        if head.n:
            anchor(home, head)
    return head if head.n else None


def read_head(home: Path) -> Head:
    """Return the end of the log as it was last written; that of an empty log without a file, or with a corrupt one."""
    try:
        return Head.model_validate_json((folder_of(home) / "head.json").read_bytes())
    except (OSError, ValidationError):
        return Head()


def _write_head(home: Path, head: Head) -> None:
    """Write the end of the log."""
    write_atomically(folder_of(home) / "head.json", head.model_dump_json())


@contextmanager
def _writable(home: Path) -> Iterator[BinaryIO]:
    """Yield the log, opened for appending and locked between processes. Raises PlatformError."""
    folder = folder_of(home)
    try:
        with locked(folder / ".lock"):
            handle = os.open(folder / LOG, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            with open(handle, "r+b") as file:
                yield file
    except OSError as error:
        what = f"the audit log {folder} cannot be written ({error.strerror or type(error).__name__})"
        raise PlatformError(what, fix="make it writable or free disk space; nothing is done without a record") from None


def _recovered(head: Head, file: BinaryIO) -> Head:
    """Return the end of the log after a crash between record and head; a line that was not finished is cut off.

    Records that are missing are not replaced: the next one continues from the head, and `verify` finds the gap.
    """
    size = file.seek(0, os.SEEK_END)
    if size <= head.size:
        return head
    file.seek(head.size)
    for line in file.readlines():
        made = parse(line)
        if made is None or (made.n, made.previous) != (head.n + 1, head.hash) or made.hash != made.digest():
            break
        head = head.after(made, head.size + len(line))
    file.seek(head.size)
    rest = file.read()
    if rest and b"\n" not in rest:
        file.truncate(head.size)
    file.seek(0, os.SEEK_END)
    return head


def parse(line: bytes) -> AuditRecord | None:
    """Return the record of a line; None for one that is none."""
    try:
        return AuditRecord.model_validate_json(line)
    except ValidationError:
        return None


@contextmanager
def reading(home: Path) -> Iterator[None]:
    """Keep writers of this machine away, where the log's lock can be read; an auditor may have a copy without one."""
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context(open(folder_of(home) / ".lock", "rb"))
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def read(home: Path) -> Iterator[AuditRecord]:
    """Yield the records, the oldest first; lines that are none are left out, as `verify` reports them."""
    try:
        with open(folder_of(home) / LOG, "rb") as file:
            yield from (found for line in file if (found := parse(line)) is not None)
    except FileNotFoundError:
        return
