"""Keys of hashes, surrogates and stored originals: 32 random bytes that only those may have who may see the data.

privacy/KEYID.key             in the home folder, hex, mode 0600; the newest is used
$RAYPATH_REDACTION_KEY        64 hex digits, or the path of such a file, where no home is kept
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from raypath.components.core.errors import DataError, UserError
from raypath.components.core.files import locked, write_atomically

VARIABLE = "RAYPATH_REDACTION_KEY"
FOLDER = "privacy"
"""Folder of the keys in a home folder."""
_HEX = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)


@dataclass(frozen=True)
class RedactionKey:
    """Secret key. Never log it."""

    secret: bytes

    @property
    def id(self) -> str:
        """First 16 hex digits of its SHA-256."""
        return hashlib.sha256(self.secret).hexdigest()[:16]

    def mac(self, *parts: str) -> bytes:
        """Return the HMAC-SHA256 of texts, 32 bytes."""
        return hmac.digest(self.secret, "\0".join(parts).encode(), "sha256")

    def __repr__(self) -> str:
        return f"RedactionKey({self.id})"


def key_folder(signing: Path | None) -> Path:
    """Return the folder of the keys beside the one that signs models; without one that of the current project."""
    home = signing.parent if signing is not None else Path(os.environ.get("RAYPATH_HOME") or ".raypath")
    return home.expanduser().resolve() / FOLDER


def ensure_key(signing: Path | None) -> RedactionKey:
    """Return the key of the environment or of a home, where one is made if there is none.

    signing: Folder in the home with the key that signs models; None for a step outside of a run, which has no home but
    that of $RAYPATH_HOME: a key in the current folder would be lost with it. Raises UserError.
    """
    folder = key_folder(signing)
    if found := _given() or _newest(folder):
        return found
    if signing is None and not os.environ.get("RAYPATH_HOME"):
        raise UserError("there is no home for the redaction key", fix=f"set RAYPATH_HOME or ${VARIABLE}")
    with locked(folder / ".lock"):
        if found := _newest(folder):
            return found
        made = RedactionKey(secrets.token_bytes(32))
        write_atomically(folder / f"{made.id}.key", made.secret.hex() + "\n")
        return made


def find_key(key_id: str, folder: Path) -> RedactionKey:
    """Return the key with an id. Raises DataError if neither the environment nor the folder has it."""
    given = _given()
    if given and given.id == key_id:
        return given
    path = folder / f"{key_id}.key"
    if path.is_file():
        return _parse(path.read_text(encoding="ascii"), str(path))
    what = f"the redaction key {key_id} is not here, without which texts are not redacted as in training"
    raise DataError(what, fix=f"set ${VARIABLE} to it, or copy its file to {folder}")


def _newest(folder: Path) -> RedactionKey | None:
    files = sorted(folder.glob("*.key"), key=lambda path: path.stat().st_mtime_ns)
    return _parse(files[-1].read_text(encoding="ascii"), str(files[-1])) if files else None


def _given() -> RedactionKey | None:
    given = os.environ.get(VARIABLE, "")
    if not given:
        return None
    if _HEX.fullmatch(given):
        return RedactionKey(bytes.fromhex(given))
    try:
        return _parse(Path(given).read_text(encoding="ascii"), given)
    except (OSError, ValueError):
        raise UserError(
            f"${VARIABLE} is neither 64 hex digits nor a file", fix="openssl rand -hex 32 makes one"
        ) from None


def _parse(text: str, where: str) -> RedactionKey:
    if not _HEX.fullmatch(text.strip()):
        raise UserError(f"{where} is no redaction key", fix="wanted 64 hex digits; openssl rand -hex 32 makes one")
    return RedactionKey(bytes.fromhex(text.strip()))
