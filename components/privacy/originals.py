"""Originals of redacted texts, encrypted by AES-256-GCM, from which those who have the key restore them.

The nonce is an HMAC of the plaintext, so that equal rows give equal bytes: it tells that rows are equal, and nothing
else.
"""

from __future__ import annotations

from raypath.components.core.errors import DataError
from raypath.components.privacy.keys import RedactionKey

_LABEL = b"raypath.redaction.originals/1"
NONCE = 12


def seal(key: RedactionKey, text: str) -> bytes:
    """Encrypt a text: nonce, ciphertext and tag."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = key.mac("nonce", text)[:NONCE]
    return nonce + AESGCM(key.mac("originals")).encrypt(nonce, text.encode(), _LABEL)


def unseal(key: RedactionKey, sealed: bytes) -> str:
    """Decrypt a text. Raises DataError for another key or altered bytes."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key.mac("originals")).decrypt(sealed[:NONCE], sealed[NONCE:], _LABEL).decode()
    except InvalidTag:
        raise DataError(
            "the originals cannot be decrypted", fix=f"use the key that redacted them, not {key.id}"
        ) from None
