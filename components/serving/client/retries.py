"""Retry policy of the client: which responses are worth another attempt, and how long to wait before it."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

RETRIED = frozenset({429, 502, 503, 504})
"""Status codes of a service that is busy, starting, or whose replica has died. A prediction changes nothing, so that
sending it twice is safe."""
FIRST_WAIT = 0.2
"""Seconds before the second attempt where the service names no time; doubled for each further one."""
LONGEST_WAIT = 8.0
"""Seconds between two attempts at most, where the service names no time."""


@dataclass
class Budget:
    """Attempts and seconds that are left for one call."""

    attempts: int
    deadline: float
    """`time.monotonic()` at which the call has to be over."""
    made: int = 0

    def seconds_left(self) -> float:
        """Seconds until the deadline, never less than a millisecond."""
        return max(self.deadline - time.monotonic(), 0.001)

    def next_wait(self, retry_after: float | None = None) -> float | None:
        """Count an attempt that failed; return the seconds to wait before the next, None where none is left."""
        self.made += 1
        wait = retry_after
        if wait is None:
            # Jitter: clients whose connections broke together do not come back together.
            wait = min(FIRST_WAIT * 2 ** (self.made - 1), LONGEST_WAIT) * random.uniform(0.5, 1.0)
        if self.made >= self.attempts or time.monotonic() + wait >= self.deadline:
            return None
        return wait


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date; None without one that can be read."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    date = email.utils.parsedate_tz(text) if text else None
    return max(email.utils.mktime_tz(date) - time.time(), 0.0) if date else None
