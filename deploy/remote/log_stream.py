"""The log of a driver elsewhere as it grows: what is the same wherever that driver runs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection

from raypath.components.core.errors import PlatformError, RaypathError, Unavailable
from raypath.deploy.remote.events import End

TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
BACKOFF = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new try; the last one repeats."""


class Notice(str):
    """A line that no driver wrote: what is told of the connection, or of the cluster."""


class LogStream(threading.Thread):
    """Puts the lines of a job's log into a queue, each once, however often the connection breaks; at last None.

    What it reads from is a subclass's: `poll`, `read`, `finish`.
    """

    def __init__(self, job: str, reconnect_timeout: float) -> None:
        super().__init__(name="raypath-tail", daemon=True)
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.error: RaypathError | None = None
        self.status, self.message = "", ""
        self.job = job
        self.closed = False
        self._reconnect_timeout = reconnect_timeout
        self._last = time.monotonic()
        self._troubles: set[str] = set()
        self._tries = 0

    def poll(self) -> tuple[str, str] | None:
        """(PENDING, RUNNING or one of TERMINAL; what is said of it), None for an unknown job. Raises Unavailable."""
        raise NotImplementedError

    def read(self) -> None:
        """Take what the log has to say, for a while or until the connection breaks."""
        raise NotImplementedError

    def finish(self) -> None:
        """Take what is left of the log of a job that has ended."""
        raise NotImplementedError

    def outcome_without_report(self, said: Collection[str]) -> End:
        """The end of a driver that did not come to tell it, whose last other lines are these."""
        if self.status == "STOPPED":
            return End()
        if self.status == "SUCCEEDED":
            return End(result={})
        words = [line.strip() for line in said if line.strip()] or self.message.strip().splitlines() or [self.status]
        what = f"the driver on the cluster died: {words[-1][:300]}"
        trace = "\n".join([*said, self.message])
        return End(kind=Unavailable.__name__, what=what, fix="run the same line again", trace=trace)

    def close(self) -> None:
        """Let go of it; nobody takes the lines any more."""
        self.closed = True

    def run(self) -> None:
        """Read until the job has ended."""
        try:
            while not self.closed and not self._over():
                self.read()
        except RaypathError as error:
            self.error = error
        finally:
            self.lines.put(None)

    def _over(self) -> bool:
        """Whether the job has ended and its log was read to the end. Raises what cannot get better by waiting."""
        try:
            found = self.poll()
        except Unavailable as error:
            if time.monotonic() - self._last > self._reconnect_timeout:
                raise
            self.lost("status", error.what)
            return False
        self.alive("status")
        if found is None:
            raise PlatformError(f"the cluster knows no job {self.job}", fix="run the same line again")
        if found[0] in TERMINAL:
            self.finish()
        self.status, self.message = found
        return self.status in TERMINAL

    def pause(self, heard: bool) -> None:
        """Wait before the next try, longer each time nothing was heard."""
        self._tries = 0 if heard else self._tries + 1
        time.sleep(BACKOFF[min(self._tries, len(BACKOFF) - 1)])

    def lost(self, what: str, why: str) -> None:
        """Say that the connection to this is lost, once until it is alive again."""
        if not self._troubles:
            self.lines.put(Notice(f"connection lost, trying again: {why}"))
        self._troubles.add(what)

    def alive(self, what: str) -> None:
        """The connection to this is there; say so, if it was lost."""
        self._last = time.monotonic()
        if self._troubles and self._troubles <= {what}:
            self.lines.put(Notice("connected again"))
        self._troubles.discard(what)
