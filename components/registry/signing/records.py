"""Signed records of a version, as tags in the registry: of its contents, and of its promotion to champion.

The record of a version binds its name and number to the manifest of its files and to its tags, the metrics among them.
That of a promotion binds the champion before and the reason. Replicas only verify; they have no private key, so that a
version which they demote to has to have been champion before. A permission, signed in advance, lets them promote one
version in place of one champion, by what live requests show.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from raypath.components.registry.signing import envelope
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import PublicKey, SigningKey
from raypath.components.tracking.tags import (
    DECIDED,
    FORGOTTEN,
    LIVE,
    PREVIOUS_CHAMPION,
    PROMOTION,
    REASON,
    REJECTED,
    SIGNATURE,
)

_VERSION = "application/vnd.raypath.version+json"
_PROMOTION = "application/vnd.raypath.promotion+json"
_PERMISSION = "application/vnd.raypath.permission+json"
_LATER = frozenset({DECIDED, FORGOTTEN, LIVE, PREVIOUS_CHAMPION, PROMOTION, REASON, REJECTED, SIGNATURE})
"""Tags that are set after a version was registered."""


@dataclass(frozen=True)
class VersionRecord:
    """Verified record of a version."""

    manifest: str
    """Digest of the manifest."""
    key: str
    signed: float
    """Unix time."""


@dataclass(frozen=True)
class Permission:
    """Verified permission to promote a version by live requests."""

    previous: int
    """The champion that it may replace."""
    run: str
    """MLflow's id of the run that collects the counts."""


def signed_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that the record of a version covers: Raypath's own, but for those that are set later."""
    return {name: value for name, value in tags.items() if name.startswith("raypath.") and name not in _LATER and value}


def sign_version(key: SigningKey, name: str, version: int, manifest: str, tags: Mapping[str, str]) -> str:
    """Return the value of the tag SIGNATURE."""
    record = {**_subject(name, version), "manifest": manifest, "tags": _digest(signed_tags(tags)), "time": time.time()}
    return json.dumps(envelope.sign(key, _VERSION, envelope.dumps(record)))


def verify_version(name: str, version: int, tags: Mapping[str, str], keys: Mapping[str, PublicKey]) -> VersionRecord:
    """Return the record of a version. Raises Untrusted if it is missing, or of another version or other tags."""
    found, key = _read(tags.get(SIGNATURE, ""), _VERSION, keys, "is not signed")
    if not _is_of(found, name, version):
        raise Untrusted("altered", "has the signature of another version")
    if found["tags"] != _digest(signed_tags(tags)):
        raise Untrusted("altered", "has tags or metrics that were changed after it was signed")
    return VersionRecord(found["manifest"], key, found["time"])


def sign_promotion(key: SigningKey, name: str, version: int, previous: int, reason: str) -> str:
    """Return the value of the tag PROMOTION. reason: the version's tag REASON."""
    record = {**_subject(name, version), "previous": previous, "reason": reason, "time": time.time()}
    return json.dumps(envelope.sign(key, _PROMOTION, envelope.dumps(record)))


def verify_promotion(name: str, version: int, tags: Mapping[str, str], keys: Mapping[str, PublicKey]) -> None:
    """Raise Untrusted unless the version was made champion by someone with a trusted key, for the reason it states, or
    by live requests with such a person's permission."""
    try:
        _verify_promotion(name, version, tags, keys)
    except Untrusted:
        try:
            permission = verify_permission(name, version, tags, keys)
        except Untrusted:
            permission = None
        if permission is None or str(permission.previous) != tags.get(PREVIOUS_CHAMPION, ""):
            raise


def sign_permission(key: SigningKey, name: str, version: int, permission: Permission) -> str:
    """Return the value of the tag LIVE."""
    record = {**_subject(name, version), **asdict(permission), "time": time.time()}
    return json.dumps(envelope.sign(key, _PERMISSION, envelope.dumps(record)))


def verify_permission(name: str, version: int, tags: Mapping[str, str], keys: Mapping[str, PublicKey]) -> Permission:
    """Return the permission to promote a version by live requests. Raises Untrusted without a valid one."""
    found, _ = _read(tags.get(LIVE, ""), _PERMISSION, keys, "has no permission to be promoted by live requests")
    if not _is_of(found, name, version):
        raise Untrusted("altered", "has the permission of another version")
    return Permission(int(found["previous"]), str(found["run"]))


def _verify_promotion(name: str, version: int, tags: Mapping[str, str], keys: Mapping[str, PublicKey]) -> None:
    found, _ = _read(tags.get(PROMOTION, ""), _PROMOTION, keys, "was made champion without a signature")
    if not _is_of(found, name, version):
        raise Untrusted("altered", "has the promotion of another version")
    if (str(found["previous"] or ""), found["reason"]) != (tags.get(PREVIOUS_CHAMPION, ""), tags.get(REASON, "")):
        raise Untrusted("altered", "has a promotion that was changed after it was signed")


def _subject(name: str, version: int) -> dict[str, Any]:
    return {"name": name, "version": version}


def _is_of(record: Mapping[str, Any], name: str, version: int) -> bool:
    return (record.get("name"), record.get("version")) == (name, version)


def _digest(tags: Mapping[str, str]) -> str:
    return hashlib.sha256(envelope.dumps(dict(tags))).hexdigest()


def _read(text: str, kind: str, keys: Mapping[str, PublicKey], missing: str) -> tuple[dict[str, Any], str]:
    if not text:
        raise Untrusted("unsigned", missing)
    try:
        signed = json.loads(text)
    except (ValueError, RecursionError):
        raise Untrusted("altered", "has a damaged signature") from None
    found: dict[str, Any] = json.loads(envelope.verify(signed, kind, keys))
    return found, envelope.key_of(signed)
