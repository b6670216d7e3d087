"""One machine at a time runs a step: a lease on object storage, by conditional puts.

Clocks are not compared. A lease is dead once it has not been renewed for TTL seconds of the watcher's own clock, or, on
the holder's own machine, once its process is gone.
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
from raypath.deploy.store.bucket import Bucket

TTL = 30.0
"""Seconds without a renewal after which a lease may be taken over: what the loss of a node costs the next one."""
BEATS = 4
"""Renewals in that time."""
log = logging.getLogger("raypath.store")


class Lease:
    """The right to run one step; `acquire` waits for it, `release` gives it back."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self.lost = False
        """Somebody else took it over, because it was not renewed in time."""
        self._bucket, self._name = bucket, f"leases/{key}.json"
        self._me = {"holder": uuid.uuid4().hex, "machine": machine(), "pid": os.getpid(), "since": _since(os.getpid())}
        self._beat = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="raypath-lease", daemon=True)

    def acquire(self) -> None:
        """Wait until the lease is ours, then keep it."""
        seen, since, told = "", time.monotonic(), False
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
            # A put whose answer was lost is refused when it is tried again, although it was ours.
            if taken or (over and self._mine()):
                break
            if not told:
                log.info("another process holds %s; waiting for it", self._name)
                told = True
            self._stop.wait(TTL / 30)
        self._thread.start()

    def release(self) -> None:
        """Give it back; a lease that was lost is left to its holder."""
        self._stop.set()
        self._thread.join()
        if not self.lost:
            try:
                found = self._held()
                if found is not None:
                    self._bucket.replace(self._name, self._next(holder=""), found)
            except RaypathError:
                log.warning("%s could not be given back; it ends by itself in %.0f s", self._name, TTL)

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
        """The lease's tag, None when it is not ours."""
        found = self._bucket.get(self._name)
        return found[1] if found is not None and json.loads(found[0])["holder"] == self._me["holder"] else None

    def _mine(self) -> bool:
        return self._held() is not None

    def _next(self, **changes: Any) -> bytes:
        # The number makes every renewal another content, and so another tag.
        self._beat += 1
        return json.dumps({**self._me, "beat": self._beat, **changes}).encode()


@functools.cache
def machine() -> str:
    """Names this machine's boot and process numbers, so that a pid means something."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"


def _dead(held: dict[str, Any]) -> bool:
    return bool(held["machine"] == machine()) and _since(held["pid"]) != held["since"]


def _since(pid: int) -> str:
    """When a process began, in the kernel's ticks; "" when it is gone or only waits to be buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
