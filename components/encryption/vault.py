"""Keys of an encrypted home, below HOME/encryption.

    vault.json          the home key, wrapped by the master key, and where the master key is; its presence turns
                        encryption on for all that is written to the home
    subjects/ID.key     a key for each subject, wrapped by the home key (`subjects`); not part of backups
    run.lock, ...       locks of folders in memory (`working_folder`)

The master key wraps the home key, which wraps the data key of each file. A new master key wraps the home key again, so
that rotation rewrites one small file. Each process unwraps the home key once.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import io
import json
import os
import secrets
from pathlib import Path
from typing import Any, BinaryIO

from raypath.components.core.errors import StoreError, UserError
from raypath.components.core.files import new_file, write_atomically
from raypath.components.encryption import envelope
from raypath.components.encryption.master_keys import MasterKey, find_key

FOLDER = "encryption"
FILE = "vault.json"
_DEPTH = 6
"""Folders above a path in which the keys are searched."""


class Vault:
    """Home key: encrypts and decrypts files. `folder` is HOME/encryption."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder = folder
        self.home = folder.parent
        self._key = key
        self.id = hashlib.sha256(b"raypath home key id" + key).digest()[: envelope.KEY_ID]

    def secret(self) -> bytes:
        """Return the home key, for a master key to wrap."""
        return self._key

    def derived(self, purpose: str, text: str = "") -> bytes:
        """Return 32 bytes that depend on the home key."""
        return hmac.digest(self._key, f"raypath {purpose}\0{text}".encode(), "sha256")

    def seal(self, identity: str, data: bytes) -> bytes:
        """Encrypt bytes to the contents of a file. identity: the file's name, which is authenticated."""
        return envelope.seal_bytes(self._key, self.id, identity, data)

    def open(self, identity: str | None, data: bytes) -> bytes:
        """Decrypt the contents of a file. Raises StoreError for altered ones, or another identity; None takes any."""
        target = io.BytesIO()
        self._open(identity, io.BytesIO(data), target, identity or "a file")
        return target.getvalue()

    def seal_file(self, identity: str, source: Path, target: Path) -> None:
        """Encrypt a file to another, which may be the same; written atomically."""
        envelope.seal_file(self._key, self.id, identity, source, target)

    def open_file(self, identity: str | None, source: Path, target: Path) -> None:
        """Decrypt a file to another, which may be the same; written atomically. Raises StoreError, UserError."""
        with open(source, "rb") as sealed, new_file(target) as file:
            self._open(identity, sealed, file, str(source))

    def read(self, path: Path, identity: str | None = None) -> bytes:
        """Return the plaintext of a file, by default of that with the identity of its path in the home."""
        return self.open(identity or self.identity(path), path.read_bytes())

    def write(self, path: Path, data: bytes, temporary: Path | None = None) -> None:
        """Write a sealed file atomically, with the identity of its path in the home."""
        with new_file(path, temporary) as file:
            file.write(self.seal(self.identity(path), data))

    def identity(self, path: Path) -> str:
        """Return a path relative to the home, or its name outside of it."""
        whole = path.resolve()
        return whole.relative_to(self.home).as_posix() if whole.is_relative_to(self.home) else path.name

    def _open(self, identity: str | None, source: BinaryIO, target: BinaryIO, where: str) -> None:
        header = envelope.read_header(source, where)
        if header.key_id != self.id:
            raise UserError(f"{where} was encrypted for another home", fix=f"restore the {FOLDER} folder of that home")
        if identity is not None and header.identity != identity:
            raise StoreError(f"{where} has the contents of {header.identity}", fix="restore it from a backup")
        envelope.open_stream(self._key, header, source, target, where)


def create_vault(home: Path, master: MasterKey) -> Vault:
    """Make the key of a home, which turns encryption on. Raises UserError for a home that has one."""
    folder = home.resolve() / FOLDER
    if (folder / FILE).exists():
        raise UserError(f"{home} is encrypted already", fix="see `raypath encryption status`")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Vault(folder, secrets.token_bytes(envelope.KEY))
    _write(made, master)
    return made


def rotate_master(vault: Vault, master: MasterKey) -> None:
    """Wrap the home key by another master key; one file is replaced atomically."""
    _write(vault, master)


def is_encrypted(home: Path) -> bool:
    """Return True for a home with keys."""
    return (home / FOLDER / FILE).is_file()


def read_settings(home: Path) -> dict[str, Any]:
    """Return the settings of the master key of a home; {} for one that is not encrypted. Raises UserError."""
    return dict(_read(home.resolve() / FOLDER / FILE).get("master", {}))


def vault_for(path: Path | str | None) -> Vault | None:
    """Return the keys of the home in which a path is; None where nothing is encrypted. Raises UserError.

    Paths in a working folder are found as well, by its link to the keys.
    """
    if not path:
        return None
    start = Path(path).absolute()
    for folder in [start, *list(start.parents)[:_DEPTH]]:
        file = folder / FOLDER / FILE
        if file.is_file():
            file = file.resolve()
            return _opened(file, file.stat().st_mtime_ns)
    return None


@functools.lru_cache(maxsize=8)
def _opened(file: Path, mtime: int) -> Vault:
    """Unwrap the key of a home. mtime: invalidates the cache."""
    found = _read(file)
    master = find_key(found["master"])
    return Vault(file.parent, master.unwrap(base64.b64decode(found["wrapped"]), _context(found["id"])))


def _write(vault: Vault, master: MasterKey) -> None:
    name = vault.id.hex()
    wrapped = base64.b64encode(master.wrap(vault.secret(), _context(name))).decode()
    content = {"format": 1, "id": name, "master": master.settings, "wrapped": wrapped}
    write_atomically(vault.folder / FILE, json.dumps(content, indent=1) + "\n")


def _context(name: str) -> bytes:
    return b"raypath home key " + name.encode()


def _read(file: Path) -> dict[str, Any]:
    try:
        status = file.stat()
    except FileNotFoundError:
        return {}
    if status.st_mode & 0o022 or status.st_uid not in (os.getuid(), 0):
        # It may name commands, which would run as this user.
        raise UserError(f"others may write {file}, or it is somebody else's", fix="chmod 600 it, or restore it")
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if found["format"] == 1 and found["master"]["kind"] and base64.b64decode(found["wrapped"], validate=True):
            return found
    except (ValueError, KeyError, TypeError, OSError):
        pass
    raise UserError(f"{file} is corrupt, without which nothing in the home can be decrypted", fix="restore a copy")
