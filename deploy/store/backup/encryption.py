"""Encryption of a backup: a random key for each repository, wrapped by a master key that its owner keeps elsewhere.

Blocks are encrypted with AES-256-GCM, with a random nonce of 96 bits before each. Their names are keyed hashes of their
contents, so that equal blocks are stored once, and that names tell nothing about contents to those without the key.
A new master key wraps the same repository key again: no block is rewritten.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, ParamsError, UserError
from raypath.components.core.files import write_new_secret

VARIABLE = "RAYPATH_BACKUP_KEY"
"""File with the master key."""
_NONCE = 12
_BYTES = 32


@dataclass(frozen=True)
class MasterKey:
    """Key that wraps the keys of repositories. Never log it."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Short id, by which a repository names its master key."""
        return hashlib.sha256(b"raypath backup key id" + self.secret).hexdigest()[:16]

    def wrap(self, key: bytes) -> str:
        """Encrypt the key of a repository."""
        return base64.b64encode(_seal(self.secret, key, b"wrapped key")).decode()

    def unwrap(self, text: str) -> bytes:
        """Decrypt the key of a repository. Raises DataError."""
        try:
            return _open(self.secret, base64.b64decode(text, validate=True), b"wrapped key")
        except ValueError:
            raise DataError("the key in the backup's file backup.json is corrupt", fix="restore a copy of it") from None


class RepositoryKey:
    """Names and encrypts the blocks of one repository."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self._names = _derived(secret, b"names")
        self._data = _derived(secret, b"data")

    @classmethod
    def new(cls) -> RepositoryKey:
        """Make a random key."""
        return cls(secrets.token_bytes(_BYTES))

    def name(self, data: bytes) -> str:
        """Return the name of a block, 64 hex digits."""
        return hmac.digest(self._names, data, "sha256").hex()

    def seal(self, name: str, data: bytes) -> bytes:
        """Encrypt a block."""
        return _seal(self._data, data, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """Decrypt a block. Raises ValueError for one that was altered or has another name."""
        return _open(self._data, sealed, name.encode())


def create_key(file: Path) -> MasterKey:
    """Write a new master key to a file of mode 0600. Raises ParamsError for one that exists or cannot be written."""
    made = MasterKey(secrets.token_bytes(_BYTES))
    try:
        write_new_secret(file, made.secret.hex() + "\n")
    except OSError as error:
        raise ParamsError(f"cannot create {file} ({error.strerror})", fix="name a new file") from None
    return made


def read_key(file: Path | None) -> MasterKey:
    """Read the master key from a file, by default that of $RAYPATH_BACKUP_KEY. Raises UserError."""
    path = file or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if path is None:
        fix = f"make one with `raypath backup key FILE`, keep a copy elsewhere, and give --key FILE or set ${VARIABLE}"
        raise UserError("a backup is encrypted, and no key was given", fix=fix)
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise UserError(f"the key {path} cannot be read ({error.strerror})", fix="give the file of the key") from None
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise UserError(f"{path} is no key of a backup", fix="give a file that `raypath backup key` has written")
    return MasterKey(secret)


def _derived(secret: bytes, purpose: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(hashes.SHA256(), _BYTES, salt=None, info=b"raypath backup " + purpose).derive(secret)


def _seal(key: bytes, data: bytes, context: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE)
    sealed: bytes = _cipher(key).encrypt(nonce, data, context)
    return nonce + sealed


def _open(key: bytes, sealed: bytes, context: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        opened: bytes = _cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], context)
    except InvalidTag:
        raise ValueError("altered") from None
    return opened


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
