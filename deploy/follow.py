"""Follow a job on a cluster: its log as it grows, drawn as a run on this machine is.

A connection that is lost is taken up again where it was.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from pathlib import Path

import aiohttp
from rich.console import Console

from components.core.errors import PlatformError, RaypathError, Unavailable
from deploy.events import End, Picture
from deploy.jobs_api import ENDED, Jobs
from deploy.runs import Run
from deploy.view import LiveView, PlainView, view_for

BEAT = 10.0
"""Seconds between two pings; a connection that does not answer one counts as lost."""
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new try; the last one repeats."""


class Tail(threading.Thread):
    """Puts the lines of a job's log into a queue, each once, however often the connection breaks; at last None."""

    def __init__(self, jobs: Jobs, job: str, patience: float) -> None:
        super().__init__(name="raypath-tail", daemon=True)
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.trouble = ""
        """Why nothing comes at present; "" while all is well."""
        self.error: RaypathError | None = None
        self.status, self.message = "", ""
        self._jobs, self._job, self._patience = jobs, job, patience
        self._seen, self._rest = 0, ""
        self._last = time.monotonic()

    def run(self) -> None:
        """Read until the job has ended."""
        try:
            tries = 0
            while not self._over():
                before = self._seen
                try:
                    asyncio.run(self._read())
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    self.trouble = str(error) or type(error).__name__
                tries = 0 if self._seen > before else tries + 1
                time.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
        except RaypathError as error:
            self.error = error
        finally:
            self.lines.put(None)

    def _over(self) -> bool:
        """Whether the job has ended and its log was read to the end. Raises what cannot get better by waiting."""
        if self.status in ENDED:
            return True
        try:
            found = self._jobs.status(self._job)
        except Unavailable as error:
            if time.monotonic() - self._last > self._patience:
                raise
            self.trouble = error.what
            return False
        self._last, self.trouble = time.monotonic(), ""
        if found is None:
            raise PlatformError(f"the cluster knows no job {self._job}", fix="run the same line again")
        if found[0] in ENDED:
            self._take(self._jobs.log(self._job)[self._seen :])
        self.status, self.message = found
        return self.status in ENDED

    async def _read(self) -> None:
        """Read the log from where we are; every connection begins at its first character."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=BEAT)
        url = f"{self._jobs.address}/api/jobs/{self._job}/logs/tail"
        at = 0
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.ws_connect(url, headers=self._jobs.headers, heartbeat=BEAT, max_msg_size=0) as socket,
        ):
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                at += len(message.data)
                if at > self._seen:
                    self._take(message.data[self._seen - at :])
                self._last, self.trouble = time.monotonic(), ""

    def _take(self, text: str) -> None:
        self._seen += len(text)
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self.lines.put(line)


def watch(home: Path, run: Run, jobs: Jobs, patience: float, console: Console) -> End:
    """Draw a run until it ends. KeyboardInterrupt leaves it running."""
    tail, picture = Tail(jobs, run.job, patience), Picture(home, run)
    said: deque[str] = deque(maxlen=200)
    tail.start()
    with view_for(home, console) as view:
        trouble = ""
        while _next(tail, picture, said, view):
            if tail.trouble != trouble:
                trouble = tail.trouble
                console.print(
                    f"connection lost, trying again: {trouble}" if trouble else "connected again", markup=False
                )
        if picture.end is None:
            _abandon(picture, tail)
        view.update(run)
    (home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "logs" / f"{run.id}.log").write_text("\n".join(said), encoding="utf-8")
    if tail.error is not None and picture.end is None:
        raise tail.error
    return picture.end or _died(tail, said)


def _next(tail: Tail, picture: Picture, said: deque[str], view: LiveView | PlainView) -> bool:
    """Take in what has come; False at the end."""
    try:
        line = tail.lines.get(timeout=0.2)
    except queue.Empty:
        view.update(picture.run)
        return True
    if line is None:
        return False
    if not picture.take(line):
        said.append(line)
    view.update(picture.run)
    return True


def _abandon(picture: Picture, tail: Tail) -> None:
    """Set down that a run ended without a word, if the cluster says that it has."""
    if tail.status not in ENDED:
        return
    picture.run.status = "stopped" if tail.status == "STOPPED" else "failed"
    picture.run.ended = time.time()
    for step in picture.run.steps:
        step.status = "stopped" if step.status == "running" else step.status
    picture.run.save(picture.home)


def _died(tail: Tail, said: deque[str]) -> End:
    """The end of a driver that did not come to tell it."""
    if tail.status == "STOPPED":
        return End()
    words = [line.strip() for line in said if line.strip()] or tail.message.strip().splitlines() or [tail.status]
    what = f"the driver on the cluster died: {words[-1][:300]}"
    return End(
        kind=Unavailable.__name__, what=what, fix="run the same line again", trace="\n".join([*said, tail.message])
    )
