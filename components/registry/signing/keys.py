"""Keys that sign registered models: ECDSA on P-256, of which those who load models have the public half only.

    signing/KEYID.key      private key, PEM, mode 0600; there is one at a time
    signing/KEYID.pub      trusted public keys, PEM; those of earlier keys stay until they are removed
    $RAYPATH_SIGNING_KEY   private key where no home is kept: PEM, or a file; its public half is trusted
    $RAYPATH_PUBLIC_KEYS   further trusted keys: PEM, a file, or a folder with *.pub

The registry holds none of them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.errors import UserError
from raypath.components.core.files import locked, write_atomically

PRIVATE, PUBLIC = "RAYPATH_SIGNING_KEY", "RAYPATH_PUBLIC_KEYS"
_BEGIN = "-----BEGIN "
_PUBLIC_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True)
class PublicKey:
    """Trusted public key."""

    id: str
    """SHA-256 of its PEM, 64 hex digits."""
    key: Any

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return True if the private half made this signature."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            self.key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """Private key. Never log it."""

    public: PublicKey
    private: Any

    def sign(self, message: bytes) -> bytes:
        """Sign a message."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        made: bytes = self.private.sign(message, ec.ECDSA(hashes.SHA256()))
        return made

    def __repr__(self) -> str:
        return f"SigningKey({short(self.public.id)})"


def short(key_id: str) -> str:
    """Return the id as it is shown and as files are named."""
    return key_id[:16]


def signing_key(folder: Path | None) -> SigningKey:
    """Return the key that signs: $RAYPATH_SIGNING_KEY, else that of a signing folder. Raises UserError without one."""
    given = os.environ.get(PRIVATE, "")
    if given:
        return _private(_text(given, PRIVATE), PRIVATE)
    files = sorted(_files(folder, "key"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        fix = f"set ${PRIVATE}, or make a key with `raypath models --rotate-key`"
        raise UserError("there is no key to sign the model with", fix=fix)
    return _private(files[-1].read_text(encoding="ascii"), str(files[-1]))


def trusted_keys(folder: Path | None) -> dict[str, PublicKey]:
    """Return the trusted public keys by id: of a signing folder and of both environment variables."""
    found = [key for path in _files(folder, "pub") for key in _public(_read(path), str(path))]
    given = os.environ.get(PUBLIC, "")
    if given and not given.startswith(_BEGIN) and Path(given).is_dir():
        found += [key for path in _files(Path(given), "pub") for key in _public(_read(path), str(path))]
    elif given:
        found += _public(_text(given, PUBLIC), PUBLIC)
    if given := os.environ.get(PRIVATE, ""):
        found.append(_private(_text(given, PRIVATE), PRIVATE).public)
    return {key.id: key for key in found}


def ensure_key(folder: Path) -> None:
    """Make a key in a signing folder that has none."""
    if not _files(folder, "key"):
        with locked(folder / ".lock"):
            if not _files(folder, "key"):
                _create(folder)


def rotate_key(folder: Path) -> str:
    """Make a new key, which signs from now on, and remove the private half of the one before; returns the new id."""
    with locked(folder / ".lock"):
        before = _files(folder, "key")
        made = _create(folder)
        for path in before:
            path.unlink()
    return made


def _create(folder: Path) -> str:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    key_id = _public_key(private.public_key()).id
    public = private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    secret = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    # The public half first: what is signed is never without a trusted key.
    write_atomically(folder / f"{short(key_id)}.pub", public.decode())
    write_atomically(folder / f"{short(key_id)}.key", secret.decode())
    return key_id


def _files(folder: Path | None, suffix: str) -> list[Path]:
    return [] if folder is None else sorted(path for path in folder.glob(f"*.{suffix}") if path.is_file())


def _text(given: str, name: str) -> str:
    """Return a PEM that is given as such, or as the path of its file."""
    return given if given.startswith(_BEGIN) else _read(Path(given), f"${name}: ")


def _read(path: Path, what: str = "") -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UserError(f"{what}{path} cannot be read ({reason})", fix="give a PEM file") from None


def _private(pem: str, name: str) -> SigningKey:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        found = form.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name != "secp256r1":
        raise UserError(
            f"{name} is not a private key on P-256 in PEM", fix="make one with `raypath models --rotate-key`"
        )
    return SigningKey(_public_key(found.public_key()), found)


def _public(text: str, name: str) -> list[PublicKey]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    found: list[PublicKey] = []
    for pem in _PUBLIC_PEM.findall(text):
        try:
            key = form.load_pem_public_key(pem.encode())
        except ValueError:
            key = None
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
            found.append(_public_key(key))
    if not found:
        raise UserError(f"{name} has no public key on P-256 in PEM", fix="give the file signing/KEYID.pub of a home")
    return found


def _public_key(key: Any) -> PublicKey:
    from cryptography.hazmat.primitives import serialization as form

    pem = key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(hashlib.sha256(pem).hexdigest(), key)


def names_of(keys: Iterable[str]) -> str:
    """Return the short ids of keys, for a message."""
    return ", ".join(sorted(map(short, keys))) or "none"
