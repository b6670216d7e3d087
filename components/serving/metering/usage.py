"""Usage metering: usage by key and minute, counted in memory and flushed to Parquet files by a thread.

A crash loses what was not flushed, at most `period` seconds. With a full disk rows stay queued. Quotas survive a
restart, since the month's totals are read back.

A request reserves an estimate of its tokens until its response is recorded, so that concurrent requests exceed a quota
by the tokens of one. With a shared ledger that holds for all processes of a home. Without one a process reads the usage
of others when it flushes, and together they may exceed a quota by the requests of two periods.
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
from datetime import UTC, date, datetime
from pathlib import Path

from raypath.components.core.files import locked
from raypath.components.serving.metering.holder import AccessError, Key
from raypath.components.serving.metering.ledger import KeyState, Ledger
from raypath.components.serving.metering.prices import price_of
from raypath.components.serving.metering.request_usage import RateLimiter, Usage
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
    preload_parquet,
    read_rows,
    read_usage,
    write_rows,
)

__all__ = ["By", "Usage", "UsageMeter", "UsageRow", "UsageTotals", "compact", "read_usage"]

COMPACT_SECONDS = 3_600.0
"""Seconds between two compactions."""
ABANDONED_SECONDS = 600.0
"""Seconds without another reservation after which one that was not settled expires."""
UNFINISHED = (499, 504)
"""Statuses of requests whose work was done without a response: the client left, or its time was up."""
_log = logging.getLogger(__name__)


class UsageMeter:
    """Usage meter of one replica. Its thread starts with the first request and ends with `close` or the process.

    Args:
        replica: Name in the file names.
        period: Seconds between two flushes.
        model: Model of requests for which the application sets none.
        ledger: Limits of the keys; none is one of this process.
    """

    def __init__(
        self, folder: Path, replica: str, period: float = 10.0, model: str = "", ledger: Ledger | None = None
    ) -> None:
        preload_parquet()
        self.folder = folder
        self.ledger = ledger or Ledger()
        self._file_prefix = f"r-{re.sub(r'[^A-Za-z0-9_-]', '-', replica)[:80]}-{secrets.token_hex(4)}"
        """Part of the names of this process's files only."""
        self._files = itertools.count()
        self.period = period
        self.model = model
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._rows: dict[Kind, UsageTotals] = defaultdict(UsageTotals)
        self._batches: list[tuple[Path, dict[Kind, UsageTotals]]] = []
        """Files to write; after a failed write a file keeps its name and rows."""
        self._month, self._month_ends = _month(time.time())
        self._totals: dict[str, UsageTotals] = defaultdict(UsageTotals)
        """This month's usage by key."""
        self._counted_files: set[str] = set()
        """Files of other replicas that are included in the totals."""
        self._include_compacted = True
        """True until the totals include files that were compacted before this process started."""
        self._compacted = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._read_back()

    def admit(self, key: Key, now: float, estimate: int = 0, limiter: RateLimiter | None = None) -> None:
        """Count a request before it is processed, and reserve its estimated tokens until `record`.

        Raises AccessError 429 if its rate limit or a quota is exhausted.
        """
        with self._lock:
            if now >= self._month_ends:
                self._begin_month(now)
            used = self._totals[key.id]
            if key.limited:
                with self.ledger.state(key.id) as state:
                    if limiter is not None:
                        limiter.acquire(key, state, now)
                    self._reserve(key, used, state, estimate, now)
            used.requests += 1

    def _reserve(self, key: Key, used: UsageTotals, state: KeyState, estimate: int, now: float) -> None:
        month = self._month.year * 12 + self._month.month
        if state.month < month or not self.ledger.shared:
            state.month, state.requests, state.tokens = month, used.requests, used.tokens
        if now - state.reserved_at > ABANDONED_SECONDS:  # by a process that ended
            state.reserved = 0
        for quota, count, what in (
            (key.quota_requests, state.requests, "requests"),
            (key.quota_tokens, state.tokens, "tokens"),
        ):
            if quota and count >= quota:
                wait = max(math.ceil(self._month_ends - now), 1)
                raise AccessError(429, f"this month's {quota:,} {what} are used up", key=key, retry_after=wait)
        if key.quota_tokens and state.tokens + state.reserved >= key.quota_tokens:
            raise _reserved_by_others(key, state)
        state.requests += 1
        state.reserved += estimate
        state.reserved_at = now

    def extend(self, key: Key, usage: Usage, tokens: int, now: float = 0.0, limiter: RateLimiter | None = None) -> None:
        """Reserve the tokens of a request, of the rate and, where it has more than was estimated, of the quota.

        The estimate knows the models that are loaded, and the length of the body; a tokenizer may have longer ones.
        Raises AccessError 429 if other requests have reserved what is left.
        """
        with self.ledger.state(key.id) as state:
            others = max(state.reserved - usage.reserved, 0)
            more = key.quota_tokens and tokens > usage.reserved
            if more and state.tokens + others >= key.quota_tokens:
                raise _reserved_by_others(key, state)
            if limiter is not None and key.tokens_per_minute:
                limiter.take_tokens(key, state, max(tokens - usage.taken, 0), now)
                usage.taken = max(usage.taken, tokens)
            if more:
                state.reserved = others + tokens
                usage.reserved = tokens

    def record(
        self,
        key: Key,
        usage: Usage,
        status: int,
        now: float,
        limiter: RateLimiter | None = None,
        default: str | None = None,
    ) -> None:
        """Record the response to an admitted request, whose reservations end. Errors are free, but their tokens count.

        Work that ends with a timeout, or whose client left, is priced as a response.

        default: Model of a request for which the application set none; None takes the meter's.
        """
        failed = status >= 400
        free = failed and not (status in UNFINISHED and usage.tokens)
        generated, cached = usage.generated_tokens, usage.cached_tokens
        price = 0.0 if free else price_of(key, usage.tokens, generated, cached)
        sums = UsageTotals(1, 0, int(failed), usage.tokens, usage.compute_seconds, price, generated, cached)
        if key.limited and (usage.reserved or usage.tokens or usage.taken):
            with self.ledger.state(key.id) as state:
                state.reserved = max(state.reserved - usage.reserved, 0)
                state.tokens += usage.tokens
                if limiter is not None and key.tokens_per_minute:
                    limiter.return_tokens(key, state, usage.taken - usage.tokens)
        model = usage.model or (self.model if default is None else default)
        self._add((key.id, key.name, model, int(now // 60), key.tenant or ""), sums)

    def record_rejected(self, key: Key | None, now: float, default: str | None = None) -> None:
        """Record a rejected request. key: None if it is unknown. default: see `record`."""
        who, tenant = ((key.id, key.name), key.tenant or "") if key else (("", ""), "")
        model = self.model if default is None else default
        self._add((*who, model, int(now // 60), tenant), UsageTotals(rejected=1))

    def flush(self) -> bool:
        """Write the counted usage; returns False if some could not be written and stays queued. Raises nothing."""
        with self._flushing:
            self._drain()
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                while self._batches:
                    write_rows(*self._batches[0])
                    del self._batches[0]
            except Exception as error:  # noqa: BLE001 - the service continues whatever the disk or Arrow raises
                _log.warning("usage could not be written and stays queued: %s", error)
                return False
        return True

    def close(self) -> bool:
        """Stop the thread and flush; returns True if everything is on disk."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        atexit.unregister(self.close)
        return self.flush() and self.flush()

    def _add(self, kind: Kind, sums: UsageTotals) -> None:
        with self._lock:
            self._rows[kind].add(sums)
            self._totals[kind[0]].tokens += sums.tokens
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def _drain(self) -> None:
        """Turn counted rows into files to write, one per day; while a write is pending, rows keep accumulating."""
        if self._batches:
            return
        with self._lock:
            rows, self._rows = self._rows, defaultdict(UsageTotals)
        days: dict[str, dict[Kind, UsageTotals]] = defaultdict(dict)
        for kind, sums in rows.items():
            days[day_of(kind[3])][kind] = sums
        for day, rows_of_day in days.items():
            self._batches.append((self.folder / f"{day}.{self._file_prefix}.{next(self._files)}.parquet", rows_of_day))

    def _run(self) -> None:
        while not self._stop.wait(self.period):
            self.flush()
            self._read_back()
            self._compact()

    def _compact(self) -> None:
        if time.monotonic() - self._compacted < COMPACT_SECONDS:
            return
        self._compacted = time.monotonic()
        try:
            compact(self.folder)
        except Exception as error:  # noqa: BLE001 - compaction can wait
            _log.warning("usage files could not be compacted: %s", error)

    def _begin_month(self, now: float) -> None:
        self._month, self._month_ends = _month(now)
        self._totals.clear()
        self._counted_files.clear()
        self._include_compacted = True

    def _read_back(self) -> None:
        """Add what other replicas flushed this month and is not yet counted."""
        month, find = self._month, live if self._include_compacted else flushed
        try:
            with locked(self.folder / LOCK, fcntl.LOCK_SH):
                found = [path for path in find(self.folder, month) if f".{self._file_prefix}." not in path.name]
                rows = [row for path in found if path.name not in self._counted_files for row in read_rows(path)]
        except Exception as error:  # noqa: BLE001 - an unreadable file must not stop the service
            _log.warning("usage of this month could not be read back, quotas count without it: %s", error)
            return
        with self._lock:
            if month == self._month:
                self._include_compacted = False
                self._counted_files = {path.name for path in found}
                for (key, *_), sums in rows:
                    self._totals[key].add(sums)


def _reserved_by_others(key: Key, state: KeyState) -> AccessError:
    left = max(key.quota_tokens - state.tokens, 0)
    reason = f"requests that are being processed may use up the {left:,} tokens left of this month; try again"
    return AccessError(429, reason, key=key, retry_after=1)


def _month(now: float) -> tuple[date, float]:
    """Return the first day of the month, UTC, and the Unix time at which the next begins."""
    first = datetime.fromtimestamp(now, UTC).date().replace(day=1)
    after = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return first, datetime(after.year, after.month, 1, tzinfo=UTC).timestamp()
