"""Rate limits: token buckets for each API key."""

from __future__ import annotations

import math

from raypath.components.serving.metering.api_keys import AccessError, Key


class RateLimiter:
    """Token bucket for each key. A bucket holds one minute's requests, starts full and refills evenly."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self._buckets: dict[str, tuple[float, float]] = {}
        """By key: remaining requests, and the time of the last update."""

    def acquire(self, key: Key, now: float) -> None:
        """Take one request from the bucket. Raises AccessError 429 if it is empty."""
        if not key.requests_per_minute:
            return
        rate = key.requests_per_minute * self.share  # per minute
        most = max(rate, 1.0)
        left, since = self._buckets.get(key.id, (most, now))
        left = min(most, left + max(now - since, 0.0) * rate / 60)
        if left < 1:
            self._buckets[key.id] = (left, now)
            wait = math.ceil((1 - left) * 60 / rate)
            reason = f"more than {key.requests_per_minute:,} requests a minute"
            raise AccessError(429, reason, key=key, retry_after=max(wait, 1))
        self._buckets[key.id] = (left - 1, now)
