"""The meter: who used how much, counted in memory by key and minute, and flushed to Parquet files by a thread.

A kill loses what was not flushed yet, at most `period` seconds. A full disk loses nothing: rows wait for room.
Quotas survive a restart, since the month's totals are read back. Between replicas they are approximate: each learns
what the others counted when it flushes, so that together they may exceed a quota by what comes in two periods.
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import logging
import math
import re
import secrets
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from raypath.components.core.files import locked
from raypath.components.serving.metering.api_keys import AccessError, Key
from raypath.components.serving.metering.usage_files import (
    LOCK,
    By,
    Kind,
    UsageRow,
    UsageTotals,
    compact,
    day_of,
    flushed,
    live,
    read_rows,
    read_usage,
    warm,
    write_rows,
)

__all__ = ["By", "Usage", "UsageMeter", "UsageRow", "UsageTotals", "compact", "read_usage"]

COMPACT = 3_600.0
"""Seconds between two compactions."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Usage:
    """What one request took; the application fills it in."""

    tokens: int = 0
    compute_seconds: float = 0.0
    """Of a core: its tokens at the speed of late, not a clock of its own."""
    model: str = ""
    """Empty: the meter's own."""


class UsageMeter:
    """Counts for one replica. Its thread begins with the first request; `close` it, or the end of the process does.

    replica: a name for its files
    model: what a request is put down to where the application does not say
    """

    def __init__(self, folder: Path, replica: str, period: float = 10.0, model: str = "") -> None:
        warm()
        self.folder = folder
        self._mine = f"r-{re.sub(r'[^A-Za-z0-9_-]', '-', replica)[:80]}-{secrets.token_hex(4)}"
        """What only the names of this process's files have."""
        self._files = itertools.count()
        self.period = period
        self.model = model
        self._counting = threading.Lock()
        self._flushing = threading.Lock()
        self._rows: dict[Kind, UsageTotals] = defaultdict(UsageTotals)
        self._batches: list[tuple[Path, dict[Kind, UsageTotals]]] = []
        """Taken from the rows, and perhaps refused by the disk before: a file keeps its name and rows."""
        self._month, self._month_ends = _month(time.time())
        self._totals: dict[str, UsageTotals] = defaultdict(UsageTotals)
        """By key, this month."""
        self._seen: set[str] = set()
        """Files of others that are in the totals."""
        self._whole = True
        """Whether the totals still lack what was drawn together before they began."""
        self._compacted = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._read_back()

    def admit(self, key: Key, now: float) -> None:
        """Count a request in, before it is answered. Raises AccessError 429 for a quota that is used up."""
        with self._counting:
            if now >= self._month_ends:
                self._begin_month(now)
            used = self._totals[key.id]
            for quota, count, what in (
                (key.quota_requests, used.requests, "requests"),
                (key.quota_tokens, used.tokens, "tokens"),
            ):
                if quota and count >= quota:
                    wait = max(math.ceil(self._month_ends - now), 1)
                    raise AccessError(429, f"this month's {quota:,} {what} are used up", key=key, retry_after=wait)
            used.requests += 1

    def record(self, key: Key, usage: Usage, status: int, now: float) -> None:
        """Note an answer to a request that was let in at `now`. Errors cost nothing, but their tokens count."""
        failed = status >= 400
        price = 0.0 if failed else key.price_per_request + usage.tokens / 1_000 * key.price_per_1k_tokens
        sums = UsageTotals(1, 0, int(failed), usage.tokens, usage.compute_seconds, price)
        self._note((key.id, key.name, usage.model or self.model, int(now // 60)), sums)

    def record_rejected(self, key: Key | None, now: float) -> None:
        """Note a request that was not let in; None for one without a known key."""
        who = (key.id, key.name) if key else ("", "")
        self._note((*who, self.model, int(now // 60)), UsageTotals(rejected=1))

    def flush(self) -> bool:
        """Write what is counted; whether it all lies on the disk. What cannot be written waits. Raises nothing."""
        with self._flushing:
            self._take()
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                while self._batches:
                    write_rows(*self._batches[0])
                    del self._batches[0]
            except Exception as error:  # noqa: BLE001 - whatever the disk or Arrow says, the service goes on
                _log.warning("usage could not be written and is kept for later: %s", error)
                return False
        return True

    def close(self) -> bool:
        """End the thread and flush a last time; whether it all lies on the disk."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        atexit.unregister(self.close)
        return self.flush() and self.flush()

    def _note(self, kind: Kind, sums: UsageTotals) -> None:
        with self._counting:
            self._rows[kind].add(sums)
            self._totals[kind[0]].tokens += sums.tokens
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def _take(self) -> None:
        """Rows become files to write, one a day; but while old ones wait, rows gather by minute and take less room."""
        if self._batches:
            return
        with self._counting:
            rows, self._rows = self._rows, defaultdict(UsageTotals)
        days: dict[str, dict[Kind, UsageTotals]] = defaultdict(dict)
        for kind, sums in rows.items():
            days[day_of(kind[3])][kind] = sums
        for day, part in days.items():
            self._batches.append((self.folder / f"{day}.{self._mine}.{next(self._files)}.parquet", part))

    def _run(self) -> None:
        while not self._stop.wait(self.period):
            self.flush()
            self._read_back()
            self._compact()

    def _compact(self) -> None:
        if time.monotonic() - self._compacted < COMPACT:
            return
        self._compacted = time.monotonic()
        try:
            compact(self.folder)
        except Exception as error:  # noqa: BLE001 - tidying up can wait
            _log.warning("usage files could not be drawn together: %s", error)

    def _begin_month(self, now: float) -> None:
        self._month, self._month_ends = _month(now)
        self._totals.clear()
        self._seen.clear()
        self._whole = True

    def _read_back(self) -> None:
        """Count in what others flushed this month, as far as it is new."""
        month, find = self._month, live if self._whole else flushed
        try:
            with locked(self.folder / LOCK, fcntl.LOCK_SH):
                found = [path for path in find(self.folder, month) if f".{self._mine}." not in path.name]
                rows = [row for path in found if path.name not in self._seen for row in read_rows(path)]
        except Exception as error:  # noqa: BLE001 - a file that cannot be read must not keep a service down
            _log.warning("usage of this month could not be read back, quotas count without it: %s", error)
            return
        with self._counting:
            if month == self._month:
                self._whole = False
                self._seen = {path.name for path in found}
                for (key, *_), sums in rows:
                    self._totals[key].add(sums)


def _month(now: float) -> tuple[date, float]:
    """The first day of the month, UTC, and when the next begins, in seconds since 1970."""
    first = datetime.fromtimestamp(now, UTC).date().replace(day=1)
    after = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return first, datetime(after.year, after.month, 1, tzinfo=UTC).timestamp()
