"""Rate limits: token buckets for each API key."""

from __future__ import annotations

import math

from raypath.components.serving.metering.api_keys import AccessError, Key


class RateLimiter:
    """A token bucket a key: it holds one minute's requests, full at first, and fills evenly."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self._buckets: dict[str, tuple[float, float]] = {}
        """By key: requests left, and when that was."""

    def take(self, key: Key, now: float) -> None:
        """Take one request. Raises AccessError 429 when the bucket is empty."""
        if not key.requests_per_minute:
            return
        rate = key.requests_per_minute * self.share  # a minute
        most = max(rate, 1.0)
        left, since = self._buckets.get(key.id, (most, now))
        left = min(most, left + max(now - since, 0.0) * rate / 60)
        if left < 1:
            self._buckets[key.id] = (left, now)
            wait = math.ceil((1 - left) * 60 / rate)
            told = f"more than {key.requests_per_minute:,} requests a minute"
            raise AccessError(429, told, key=key, retry_after=max(wait, 1))
        self._buckets[key.id] = (left - 1, now)
