"""Lease on object storage, by conditional puts: one process of all machines runs a step.

Clocks of machines are not compared. A lease expires when it was not renewed for TTL seconds of the waiting process's
clock, or, on the same machine, when the process that holds it has ended.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from raypath.components.core.errors import RaypathError
from raypath.components.data.sources.bucket import Objects

TTL = 30.0
"""Seconds without renewal after which a lease expires: the delay after the loss of a node."""
BEATS = 4
"""Renewals during TTL."""
log = logging.getLogger("raypath.store")


class Lease:
    """Exclusive right to run one step."""

    def __init__(self, bucket: Objects, key: str) -> None:
        self.lost = False
        """True once another process took the lease over because it was not renewed in time."""
        self._bucket, self._name = bucket, f"leases/{key}.json"
        self._me = {
            "holder": uuid.uuid4().hex,
            "machine": machine_id(),
            "pid": os.getpid(),
            "since": _since(os.getpid()),
        }
        self._beat = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="raypath-lease", daemon=True)

    def acquire(self) -> None:
        """Wait for the lease, then renew it in a background thread."""
        seen, since, logged = "", time.monotonic(), False
        while True:
            found = self._bucket.get(self._name)
            if found is None:
                over, taken = True, self._bucket.create(self._name, self._next())
            else:
                held, tag = json.loads(found[0]), found[1]
                if tag != seen:
                    seen, since = tag, time.monotonic()
                over = not held["holder"] or _dead(held) or time.monotonic() - since > TTL
                taken = over and self._bucket.replace(self._name, self._next(), tag)
            # A retried put is rejected when the first one succeeded and only its response was lost.
            if taken or (over and self._mine()):
                break
            if not logged:
                log.info("another process holds %s; waiting for it", self._name)
                logged = True
            self._stop.wait(TTL / 30)
        self._thread.start()

    def release(self) -> None:
        """Release the lease, unless it was lost."""
        self._stop.set()
        self._thread.join()
        if not self.lost:
            try:
                found = self._held()
                if found is not None:
                    self._bucket.replace(self._name, self._next(holder=""), found)
            except RaypathError:
                log.warning("%s could not be released; it expires in %.0f s", self._name, TTL)

    def _renew(self) -> None:
        while not self._stop.wait(TTL / BEATS):
            try:
                tag = self._held()
                if tag is None or not (self._bucket.replace(self._name, self._next(), tag) or self._mine()):
                    self.lost = True
                    log.warning("%s was taken over by another process", self._name)
                    return
            except RaypathError:
                continue

    def _held(self) -> str | None:
        """Return the lease's ETag, None when another process holds it."""
        found = self._bucket.get(self._name)
        return found[1] if found is not None and json.loads(found[0])["holder"] == self._me["holder"] else None

    def _mine(self) -> bool:
        return self._held() is not None

    def _next(self, **changes: Any) -> bytes:
        # The counter changes the content, and so the ETag, with every renewal.
        self._beat += 1
        return json.dumps({**self._me, "beat": self._beat, **changes}).encode()


@functools.cache
def machine_id() -> str:
    """Return an id of this boot and process namespace, within which process ids are meaningful."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"


def _dead(held: dict[str, Any]) -> bool:
    return bool(held["machine"] == machine_id()) and _since(held["pid"]) != held["since"]


def _since(pid: int) -> str:
    """Return a process's start time in clock ticks; "" when it has ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
