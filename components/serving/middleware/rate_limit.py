"""Rate limits: token buckets for each API key."""

from __future__ import annotations

import math

from raypath.components.serving.metering.api_keys import AccessError, Key
from raypath.components.serving.metering.ledger import KeyState


class RateLimiter:
    """Token bucket for each key. A bucket holds one minute's requests, starts full and refills evenly.

    share: Share of each rate that this process grants, for a ledger that is not shared.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def acquire(self, key: Key, state: KeyState, now: float) -> None:
        """Take one request from the bucket. Raises AccessError 429 if it is empty."""
        if not key.requests_per_minute:
            return
        rate = key.requests_per_minute * self.share  # per minute
        most = max(rate, 1.0)
        left = most if state.requests_left < 0 else state.requests_left
        left = min(most, left + max(now - state.updated, 0.0) * rate / 60)
        state.updated = now
        if left < 1:
            state.requests_left = left
            wait = math.ceil((1 - left) * 60 / rate)
            reason = f"more than {key.requests_per_minute:,} requests a minute"
            raise AccessError(429, reason, key=key, retry_after=max(wait, 1))
        state.requests_left = left - 1
