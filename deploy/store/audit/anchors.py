"""Anchors of the audit log: number and hash of a record, signed with the project's key and kept elsewhere as well.

Whoever may write to a home could write a whole new log with right hashes. An anchor that is stored where this person
may not write, in a folder or bucket that $RAYPATH_AUDIT_ANCHORS names, shows that. Each home needs a folder of its own
there: an anchor of another log means that the log was replaced. Anchors are separate objects, which are never written
again: anchors/N-DAY-HASH.json.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from raypath.components.core.errors import DataError, ParamsError, RaypathError
from raypath.components.core.files import write_atomically
from raypath.components.registry.signing import envelope
from raypath.components.registry.signing.keys import ensure_key, signing_key
from raypath.deploy.store.audit.records import Head, canonical, folder_of

ELSEWHERE = "RAYPATH_AUDIT_ANCHORS"
"""Folder or s3://BUCKET/PREFIX that receives a copy of each anchor."""
TYPE = "application/vnd.raypath.audit-anchor+json"
FILE = "anchors.jsonl"
_FOLDER = "anchors"
_COPIED = 31
"""Latest anchors that are copied elsewhere, those of earlier days again: it may have been out of reach then."""
_log = logging.getLogger("raypath.audit")


class Anchor(BaseModel):
    """End of the log at a moment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log: str
    """Id of the log: the hash of its first record, shortened."""
    n: int
    hash: str
    day: str
    """Day of the record, UTC."""


def anchor(home: Path, head: Head) -> Anchor:
    """Sign and store the end of the log. A copy elsewhere that fails is logged, and made with the next anchor."""
    made = Anchor(log=head.log, n=head.n, hash=head.hash, day=head.day)
    ensure_key(home / "signing")
    signed = envelope.sign(signing_key(home / "signing"), TYPE, canonical(made.model_dump()))
    handle = os.open(folder_of(home) / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with open(handle, "ab") as file:
        file.write(canonical(signed) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        copy_elsewhere(home)
    except (RaypathError, OSError) as error:
        _log.warning("anchors of the audit log could not be copied to %s: %s", os.environ.get(ELSEWHERE), error)
    return made


def copy_elsewhere(home: Path) -> int:
    """Copy the latest anchors to $RAYPATH_AUDIT_ANCHORS. Returns their number. Raises RaypathError, OSError."""
    place = os.environ.get(ELSEWHERE, "")
    if not place:
        return 0
    latest = [(name, signed) for signed in _lines(folder_of(home) / FILE) if (name := _name(signed))][-_COPIED:]
    for name, signed in latest:
        _create(place, name, canonical(signed))
    return len(latest)


def stored_anchors(home: Path, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (where, envelope) of the anchors in the home and elsewhere. Raises RaypathError."""
    yield from ((FILE, signed) for signed in _lines(folder_of(home) / FILE))
    if place := place or os.environ.get(ELSEWHERE, ""):
        yield from ((f"{place}/{name}", signed) for name, signed in _read_all(place))


def _name(signed: Any) -> str:
    """Return the name of an anchor's copy; "" for a line that is no anchor, which `verify` reports."""
    try:
        made = Anchor.model_validate_json(base64.b64decode(signed["payload"]))
    except (TypeError, KeyError, ValueError):
        return ""
    return f"{_FOLDER}/{made.n:09d}-{made.day}-{made.hash[:8]}.json"


def _lines(file: Path) -> Iterator[Any]:
    if file.exists():
        for line in file.read_bytes().splitlines():
            yield _parsed(line)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_bucket(place: str) -> bool:
    if "://" in place and not place.startswith("s3://"):
        raise ParamsError(f"{ELSEWHERE} is {place!r}", fix="write s3://BUCKET/PREFIX, or the path of a folder")
    return "://" in place


def _create(place: str, name: str, data: bytes) -> None:
    if _is_bucket(place):
        from raypath.components.data.sources.bucket import Bucket

        Bucket(place).create(name, data)
        return
    file = Path(place) / name
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, data.decode())


def _read_all(place: str) -> Iterator[tuple[str, Any]]:
    if _is_bucket(place):
        from raypath.components.data.sources.bucket import Bucket

        bucket = Bucket(place)
        for name in sorted(bucket.names(_FOLDER)):
            found = bucket.get(name)
            yield name, None if found is None else _parsed(found[0])
        return
    if not Path(place).is_dir():
        raise DataError(f"no folder {place} with anchors of the audit log", fix=f"correct ${ELSEWHERE} or --anchors")
    for file in sorted((Path(place) / _FOLDER).glob("*.json")):
        yield file.name, _parsed(file.read_bytes())
