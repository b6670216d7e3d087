"""Sealed files: AES-256-GCM in chunks, under a random data key for each file that the home key wraps.

    magic 8 | id of the home key 8 | chunk size 4 | length of the identity 2 | identity | nonce 12 | wrapped data key 48
    chunk 0 and tag 16 | chunk 1 and tag 16 | ...

The identity is the file's name in the home; it is authenticated together with the wrapped key. The nonce of a chunk is
its number and a mark of the last one, and all before the nonce of the key is authenticated with each chunk. So bytes
that changed, chunks that are missing, swapped or of another file, and a file under another name do not decrypt.
"""

from __future__ import annotations

import io
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from raypath.components.core.errors import StoreError
from raypath.components.core.files import new_file

MAGIC = b"RPSEAL1\n"
CHUNK = 1 << 20
"""Bytes of plaintext in a chunk."""
KEY, KEY_ID, NONCE, TAG = 32, 8, 12, 16
"""Sizes in bytes."""
_FIXED = struct.Struct(">8s8sIH")
_LARGEST = 1 << 26
"""Largest size of a chunk that is accepted."""


@dataclass(frozen=True)
class Header:
    """Beginning of a sealed file."""

    key_id: bytes
    identity: str
    chunk: int
    wrapped: bytes
    """Nonce and wrapped data key."""

    @property
    def authenticated(self) -> bytes:
        """Bytes that are authenticated with the data key and with each chunk."""
        name = self.identity.encode()
        return _FIXED.pack(MAGIC, self.key_id, self.chunk, len(name)) + name

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.authenticated) + len(self.wrapped)


def is_sealed(path: Path) -> bool:
    """Return True for a file that begins as a sealed one."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def sealed_size(size: int, identity: str) -> int:
    """Return the size of a sealed file with `size` bytes of plaintext."""
    chunks = max(1, -(-size // CHUNK))
    return _FIXED.size + len(identity.encode()) + NONCE + KEY + TAG + size + chunks * TAG


def seal_stream(key: bytes, key_id: bytes, identity: str, source: BinaryIO, target: BinaryIO) -> None:
    """Encrypt a stream. key: the home key."""
    data_key = secrets.token_bytes(KEY)
    plain = Header(key_id, identity, CHUNK, b"")
    nonce = secrets.token_bytes(NONCE)
    header = Header(key_id, identity, CHUNK, nonce + cipher(key).encrypt(nonce, data_key, plain.authenticated))
    target.write(header.authenticated + header.wrapped)
    engine, context = cipher(data_key), header.authenticated
    for number, data, last in _chunks(source, CHUNK):
        target.write(engine.encrypt(_nonce(number, last), data, context))


def read_header(source: BinaryIO, where: str) -> Header:
    """Read the header of a sealed file. where: its name in messages. Raises StoreError."""
    found = source.read(_FIXED.size)
    if found and not found.startswith(MAGIC) and not MAGIC.startswith(found):
        fix = "`raypath encryption init` encrypts what is in plaintext; else restore it from a backup, or run again"
        raise StoreError(f"{where} is no encrypted file", fix=fix)
    if len(found) == _FIXED.size:
        magic, key_id, chunk, length = _FIXED.unpack(found)
        name, wrapped = source.read(length), source.read(NONCE + KEY + TAG)
        if magic == MAGIC and len(wrapped) == NONCE + KEY + TAG and 0 < chunk <= _LARGEST:
            return Header(key_id, name.decode(errors="replace"), chunk, wrapped)
    raise _altered(where)


def open_stream(key: bytes, header: Header, source: BinaryIO, target: BinaryIO, where: str) -> None:
    """Decrypt what follows a header. Raises StoreError for a file that was altered; `target` is then incomplete."""
    from cryptography.exceptions import InvalidTag

    try:
        wrapped = header.wrapped
        data_key = cipher(key).decrypt(wrapped[:NONCE], wrapped[NONCE:], header.authenticated)
        engine, context = cipher(data_key), header.authenticated
        for number, data, last in _chunks(source, header.chunk + TAG):
            target.write(engine.decrypt(_nonce(number, last), data, context))
    except InvalidTag:
        raise _altered(where) from None


def seal_file(key: bytes, key_id: bytes, identity: str, source: Path, target: Path) -> None:
    """Encrypt a file to another, which is written atomically with mode 0600."""
    with open(source, "rb") as plain, new_file(target) as file:
        seal_stream(key, key_id, identity, plain, file)


def seal_bytes(key: bytes, key_id: bytes, identity: str, data: bytes) -> bytes:
    """Encrypt bytes to the contents of a sealed file."""
    target = io.BytesIO()
    seal_stream(key, key_id, identity, io.BytesIO(data), target)
    return target.getvalue()


def cipher(key: bytes) -> Any:
    """Return AES-256-GCM with a key of 32 bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _chunks(source: BinaryIO, size: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number, bytes and whether it is the last, for each chunk of a stream; an empty stream has one."""
    number, data = 0, source.read(size)
    while True:
        following = source.read(size) if len(data) == size else b""
        yield number, data, not following
        if not following:
            return
        number, data = number + 1, following


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(NONCE - 1, "big") + (b"\1" if last else b"\0")


def _altered(where: str) -> StoreError:
    return StoreError(
        f"{where} was altered, or is incomplete", fix="restore it from a backup, or run again, which recomputes it"
    )
