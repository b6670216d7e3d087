"""DSSE envelopes: a payload with a type and a signature over both (https://github.com/secure-systems-lab/dsse)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from raypath.components.core.errors import DataError
from raypath.components.registry.signing.keys import PublicKey, SigningKey, names_of, short

State = Literal["valid", "unsigned", "altered", "unknown key"]
"""State of what is signed; `unknown key`: by a key that is not trusted here."""


class Untrusted(Exception):
    """A signature that is missing or not valid. Never leaves the registry's package, which raises DataError."""

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state, self.reason = state, reason

    def fail(self, name: str, version: int) -> NoReturn:
        """Raise DataError for a version that is not to be trusted."""
        fix = f"look at it, then run `raypath models --sign {name} {version}`, or register the model again"
        raise DataError(f"{name} version {version} {self.reason}", fix=fix) from None


def sign(key: SigningKey, kind: str, payload: bytes) -> dict[str, Any]:
    """Return the envelope of a payload. kind: its type."""
    signature = key.sign(_encoded(kind, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": key.public.id}],
    }


def verify(envelope: Any, kind: str, keys: Mapping[str, PublicKey]) -> bytes:
    """Return the payload of an envelope that a trusted key has signed. Raises Untrusted."""
    try:
        payload, [signed] = base64.b64decode(envelope["payload"], validate=True), envelope["signatures"]
        key_id, signature = str(signed["keyid"]), base64.b64decode(signed["sig"], validate=True)
        right = envelope["payloadType"] == kind
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise Untrusted("altered", "has a damaged signature") from None
    if key_id not in keys:
        reason = f"is signed by key {short(key_id)!r}, which is not trusted here (trusted: {names_of(keys)})"
        raise Untrusted("unknown key", reason)
    if not right or not keys[key_id].verifies(signature, _encoded(kind, payload)):
        raise Untrusted("altered", "has a signature that does not match")
    return payload


def key_of(envelope: Any) -> str:
    """Return the id of the key that an envelope names, "" without one; it is not verified."""
    try:
        return str(envelope["signatures"][0]["keyid"])
    except (KeyError, TypeError, IndexError):
        return ""


def _encoded(kind: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding, which is what is signed."""
    return f"DSSEv1 {len(kind.encode())} {kind} {len(payload)} ".encode() + payload


def dumps(value: Any) -> bytes:
    """Return canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
