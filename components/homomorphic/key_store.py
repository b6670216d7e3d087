"""Evaluation keys that clients uploaded: files by owner and SHA-256, which replicas share, within bounds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError
from raypath.components.core.files import new_file
from raypath.components.homomorphic.wire import KEYS_BYTES, read_keys

PER_OWNER, TOTAL = 4, 512
"""Sets of keys of an API key, and of all; the ones that were not used for longest are deleted."""
EXPIRES = 86_400.0
"""Seconds after the last request with a set of keys until it is deleted."""
_LOADED = 8
"""Sets of keys in memory, 10 MB each."""
_TOUCHED = 60.0
"""Seconds between two updates of the time at which keys were used."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
SECRET = "the upload contains a secret key, with which the server could read everything; it was not stored"
_FIX = "upload the evaluation keys of this client alone (raypath.Client does so)"


class EvaluationKeyStore:
    """Evaluation keys by owner, the id of an API key. Thread-safe; processes may share a folder.

    folder: None takes a temporary one, which ends with the store.
    """

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="raypath-evaluation-keys-")
        self._folder = folder or Path(self._temporary.name)  # type: ignore[union-attr]
        self._clock = clock
        self._loaded: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, owner: str, data: bytes) -> str:
        """Store keys; return their digest. Raises DataError for data that are none, or that have a secret key."""
        if secret := secret_kind(data):
            raise DataError(f"{SECRET} ({secret})", fix=_FIX)
        keys, digest = read_keys(data), hashlib.sha256(data).hexdigest()
        path = self._path(owner, digest)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.is_file():
            with new_file(path) as file:
                file.write(data)
        self._touch(path)
        self._sweep()
        self._remember((owner, digest), keys)
        return digest

    def get(self, owner: str, digest: str) -> Any:
        """Return stored keys, and count them as used. Raises KeyError for unknown, foreign or expired ones."""
        if not _DIGEST.fullmatch(digest):
            raise KeyError(digest)
        path = self._path(owner, digest)
        try:
            idle = self._clock() - path.stat().st_mtime
            if idle > EXPIRES:
                raise KeyError(digest)
            with self._lock:
                keys = self._loaded.get((owner, digest))
            if keys is None:
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() != digest:
                    raise KeyError(digest)
                keys = read_keys(data)
            if idle > _TOUCHED:
                self._touch(path)
        except OSError:
            raise KeyError(digest) from None
        self._remember((owner, digest), keys)
        return keys

    def _path(self, owner: str, digest: str) -> Path:
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32] / f"{digest}.keys"

    def _remember(self, name: tuple[str, str], keys: Any) -> None:
        with self._lock:
            self._loaded[name] = keys
            self._loaded.move_to_end(name)
            while len(self._loaded) > _LOADED:
                self._loaded.popitem(last=False)

    def _touch(self, path: Path) -> None:
        now = self._clock()
        os.utime(path, (now, now))

    def _sweep(self) -> None:
        """Delete expired keys, and those beyond the bounds."""
        used: dict[Path, float] = {}
        for path in self._folder.glob("*/*.keys"):
            with contextlib.suppress(OSError):
                used[path] = path.stat().st_mtime
        oldest = sorted(used, key=lambda path: -used[path])
        limit, kept = self._clock() - EXPIRES, OrderedDict[Path, int]()
        for number, path in enumerate(oldest):
            kept[path.parent] = kept.get(path.parent, 0) + 1
            if used[path] < limit or number >= TOTAL or kept[path.parent] > PER_OWNER:
                path.unlink(missing_ok=True)


def secret_kind(data: bytes) -> str:
    """Return the kind of object with a secret key that an upload is, "" for others.

    Uploads have one fixed length, of which no object with a secret key is; this check is for a clear message.
    """
    if len(data) == KEYS_BYTES:
        return ""
    if data[:3] == b"\x5e\xa1\x10":
        return "an object of SEAL, which may be one"
    return "a private TenSEAL context" if 3 in _fields(data) else ""


def _fields(data: bytes) -> set[int]:
    """Return the numbers of the fields of a Protocol Buffers message, as far as it is one; 3 is TenSEAL's private
    part."""
    found: set[int] = set()
    place = 0
    while place < len(data) and len(found) < 8:
        tag = data[place]
        size, place = _varint(data, place + 1)
        if tag >> 3 == 0 or tag & 7 not in (0, 2) or place < 0:
            break
        found.add(tag >> 3)
        place += size if tag & 7 == 2 else 0
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number at a place and the place after it, (0, -1) where there is none."""
    number = 0
    for n, byte in enumerate(data[place : place + 10]):
        number |= (byte & 127) << 7 * n
        if byte < 128:
            return number, place + n + 1
    return 0, -1
