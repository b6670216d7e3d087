"""Stream the log of a remote driver, with reconnects: the part that does not depend on the kind of cluster."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection

from raypath.components.core.errors import PlatformError, RaypathError, Unavailable
from raypath.components.data.streaming.ray_errors import out_of_memory
from raypath.deploy.remote.events import RunEnd

TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
BACKOFF = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each reconnect; the last one repeats."""


class Notice(str):
    """A line about the connection or the cluster, which is not part of the driver's log."""


class LogStream(threading.Thread):
    """Put the lines of a job's log into a queue, each one once, across lost connections; None follows the last line.

    Subclasses connect to a cluster: `poll`, `read`, `drain`.
    """

    def __init__(self, job: str, reconnect_timeout: float) -> None:
        super().__init__(name="raypath-log-stream", daemon=True)
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.error: RaypathError | None = None
        self.status, self.message = "", ""
        self.job = job
        self.closed = False
        self._reconnect_timeout = reconnect_timeout
        self._last_contact = time.monotonic()
        self._lost: set[str] = set()
        self._tries = 0

    def poll(self) -> tuple[str, str] | None:
        """(PENDING, RUNNING or one of TERMINAL; message), None for an unknown job. Raises Unavailable."""
        raise NotImplementedError

    def read(self) -> None:
        """Read lines for a while, or until the connection is lost."""
        raise NotImplementedError

    def drain(self) -> None:
        """Read the rest of the log of a job that has ended."""
        raise NotImplementedError

    def end_of_lost_driver(self, log: Collection[str]) -> RunEnd:
        """The end of a run whose driver reported none, from the job's status and the last lines of the log."""
        if self.status == "STOPPED":
            return RunEnd()
        if self.status == "SUCCEEDED":
            return RunEnd(result={})
        lines = [line.strip() for line in log if line.strip()] or self.message.strip().splitlines() or [self.status]
        trace = "\n".join([*log, self.message])
        what = f"the driver on the cluster died: {out_of_memory(trace) or lines[-1][:300]}"
        return RunEnd(kind=Unavailable.__name__, what=what, fix="run the same command again", trace=trace)

    def close(self) -> None:
        """Stop reading; nobody takes further lines."""
        self.closed = True

    def run(self) -> None:
        """Read until the job has ended."""
        try:
            while not self.closed and not self._ended():
                self.read()
        except RaypathError as error:
            self.error = error
        finally:
            self.lines.put(None)

    def _ended(self) -> bool:
        """Poll the job, and read the rest of its log once it has ended. Raises errors that a retry does not cure."""
        try:
            found = self.poll()
        except Unavailable as error:
            if time.monotonic() - self._last_contact > self._reconnect_timeout:
                raise
            self.connection_lost("status", error.what)
            return False
        self.connected("status")
        if found is None:
            raise PlatformError(f"the cluster has no job {self.job}", fix="run the same command again")
        if found[0] in TERMINAL:
            self.drain()
        self.status, self.message = found
        return self.status in TERMINAL

    def back_off(self, received: bool) -> None:
        """Wait before the next connection, longer each time nothing was received."""
        self._tries = 0 if received else self._tries + 1
        time.sleep(BACKOFF[min(self._tries, len(BACKOFF) - 1)])

    def connection_lost(self, channel: str, reason: str) -> None:
        """Report a lost connection, once until all channels are back."""
        if not self._lost:
            self.lines.put(Notice(f"connection lost, reconnecting: {reason}"))
        self._lost.add(channel)

    def connected(self, channel: str) -> None:
        """Record a working connection; report it if it was lost before."""
        self._last_contact = time.monotonic()
        if self._lost and self._lost <= {channel}:
            self.lines.put(Notice("reconnected"))
        self._lost.discard(channel)
