"""Ledger of the keys with limits: rate, this month's usage and reservations, in memory or shared by the processes of a
home.

The shared ledger is a file of fixed records, one per key. A record is read and written under a lock of its own, which
takes some microseconds. It is created from the usage files and then is ahead of them, since these are written every few
seconds only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

_RECORD = struct.Struct("<16sddqqqqddd")
_ID = 16
_APPEND = 1 << 40
"""Position of the lock of those that append a record."""
_ATTEMPTS, _PAUSE = 100, 0.0005
"""Attempts to lock a record and the seconds between two."""
_ALONE_SECONDS = 5.0
"""Seconds without the file after it could not be read or locked, so that a stopped process stops no other."""
_PROCESS = threading.Lock()
"""Held with the lock of a record, which belongs to the process: two ledgers of one process would both have it."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class KeyState:
    """State of a key's limits."""

    requests_left: float = -1.0
    """Requests that the rate limit allows at `updated`; negative: a full minute's."""
    updated: float = 0.0
    month: int = 0
    """Months since year 0 of `requests` and `tokens`."""
    requests: int = 0
    """Admitted this month."""
    tokens: int = 0
    """Of responses this month."""
    reserved: int = 0
    """Estimated tokens of requests that are being processed."""
    reserved_at: float = 0.0
    """Time of the last reservation."""
    tokens_left: float = 0.0
    """Tokens that the rate limit allows at `tokens_updated`; negative where more were used."""
    tokens_updated: float = 0.0
    """0: a full minute's tokens are left."""


class Ledger:
    """Ledger of one process."""

    shared = False
    """True if the months' sums include those of other processes."""

    def __init__(self) -> None:
        self._states: dict[str, KeyState] = defaultdict(KeyState)

    @contextmanager
    def state(self, id: str) -> Iterator[KeyState]:
        """Yield the state of a key, which the block may change."""
        yield self._states[id]


class SharedLedger(Ledger):
    """Ledger of all processes that open this file. Without access to the file it counts in memory. Raises nothing."""

    shared = True

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self._handle = -1
        self._alone_until = 0.0
        self._places: dict[str, int] = {}
        """Position of a key's record."""

    @contextmanager
    def state(self, id: str) -> Iterator[KeyState]:
        """Yield the state of a key, locked; the block may change it."""
        with _PROCESS:
            yield from self._locked(id)

    def _locked(self, id: str) -> Iterator[KeyState]:
        place = self._lock(id)
        if place < 0:
            yield self._states[id]
            return
        try:
            _, *fields = _RECORD.unpack(os.pread(self._handle, _RECORD.size, place))
            state = KeyState(*fields)
            try:
                yield state
            finally:
                os.pwrite(self._handle, _RECORD.pack(_name(id), *astuple(state)), place)
                self._states[id] = state
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, _RECORD.size, place)

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _lock(self, id: str) -> int:
        """Lock the record of a key and return its position, -1 if that fails."""
        if self._alone_until > time.monotonic():
            return -1
        reason = "another process has locked the file"
        try:
            place = self._places[id] if id in self._places else self._find(id)
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(BlockingIOError):
                    fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, _RECORD.size, place)
                    return place
                time.sleep(_PAUSE)
        except OSError as error:
            reason = str(error)
        self._alone_until = time.monotonic() + _ALONE_SECONDS
        _log.warning("limits of keys are counted by this process alone: %s", reason)
        return -1

    def _find(self, id: str) -> int:
        """Return the position of a key's record, which is appended if there is none. Raises OSError."""
        if self._handle < 0:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._handle, fcntl.LOCK_EX, 1, _APPEND)
        try:
            end = os.fstat(self._handle).st_size // _RECORD.size * _RECORD.size
            content, name = os.pread(self._handle, end, 0), _name(id)
            found = next((n for n in range(0, end, _RECORD.size) if content[n : n + _ID] == name), end)
            if found == end:
                os.pwrite(self._handle, _RECORD.pack(name, *astuple(KeyState())), end)
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, _APPEND)
        self._places[id] = found
        return found


def _name(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=_ID).digest()
