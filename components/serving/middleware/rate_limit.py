"""Rate limits: token buckets for each API key, of requests and of tokens."""

from __future__ import annotations

import math

from raypath.components.serving.metering.holder import AccessError, Key
from raypath.components.serving.metering.ledger import KeyState


class RateLimiter:
    """Two token buckets for each key. A bucket holds one minute's requests or tokens, starts full and refills evenly.

    share: Share of each rate that this process grants, for a ledger that is not shared.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def acquire(self, key: Key, state: KeyState, now: float) -> None:
        """Take one request from the bucket. Raises AccessError 429 if it is empty, or that of the tokens is."""
        if key.tokens_per_minute and (left := self._tokens_left(key, state, now)) < 1:
            raise _too_many(key, f"{key.tokens_per_minute:,} tokens", (1 - left) * 60 / self._token_rate(key))
        if not key.requests_per_minute:
            return
        left, rate = self._requests_left(key, state, now), self._request_rate(key)
        state.updated = now
        if left < 1:
            state.requests_left = left
            raise _too_many(key, f"{key.requests_per_minute:,} requests", (1 - left) * 60 / rate)
        state.requests_left = left - 1

    def take_tokens(self, key: Key, state: KeyState, tokens: int, now: float) -> None:
        """Take the most tokens that a request may have. Raises AccessError 429 if the bucket does not have them.

        A full bucket of a share gives up to the tokens of the whole rate; what is missing then is refilled first.
        """
        most = key.tokens_per_minute
        if tokens > most:
            what = f"the request may have {tokens:,} tokens with its response, and its key has {most:,} a minute"
            raise AccessError(429, f"{what}; lower max_tokens, or shorten it", key=key)
        left, rate = self._tokens_left(key, state, now), self._token_rate(key)
        if (missing := min(tokens, max(rate, 1.0)) - left) > 0:
            raise _too_many(key, f"{most:,} tokens", missing * 60 / rate)
        state.tokens_left, state.tokens_updated = left - tokens, now

    def return_tokens(self, key: Key, state: KeyState, tokens: int) -> None:
        """Return tokens that were taken and not used; a negative number takes them."""
        if state.tokens_updated:
            state.tokens_left = min(state.tokens_left + tokens, max(self._token_rate(key), 1.0))

    def headers(self, key: Key, state: KeyState, now: float) -> dict[str, str]:
        """Return the limits of a key as OpenAI's headers: the limit, what is left, and the time until all is."""
        found: dict[str, str] = {}
        if key.requests_per_minute:
            left, rate = self._requests_left(key, state, now), self._request_rate(key)
            found |= _headers("requests", key.requests_per_minute, left, rate)
        if key.tokens_per_minute:
            left, rate = self._tokens_left(key, state, now), self._token_rate(key)
            found |= _headers("tokens", key.tokens_per_minute, left, rate)
        return found

    def _request_rate(self, key: Key) -> float:
        return key.requests_per_minute * self.share

    def _token_rate(self, key: Key) -> float:
        return key.tokens_per_minute * self.share

    def _requests_left(self, key: Key, state: KeyState, now: float) -> float:
        left = math.inf if state.requests_left < 0 else state.requests_left
        return _refilled(left, now - state.updated, self._request_rate(key))

    def _tokens_left(self, key: Key, state: KeyState, now: float) -> float:
        left = state.tokens_left if state.tokens_updated else math.inf
        return _refilled(left, now - state.tokens_updated, self._token_rate(key))


def _refilled(left: float, seconds: float, rate: float) -> float:
    """Return what a bucket has after some seconds. rate: a minute."""
    return min(max(rate, 1.0), left + max(seconds, 0.0) * rate / 60)


def _too_many(key: Key, what: str, seconds: float) -> AccessError:
    return AccessError(429, f"more than {what} a minute", key=key, retry_after=max(math.ceil(seconds), 1))


def _headers(what: str, limit: int, left: float, rate: float) -> dict[str, str]:
    named = {"limit": str(limit), "remaining": str(max(int(left), 0))}
    named["reset"] = _duration(max(max(rate, 1.0) - left, 0.0) * 60 / rate)
    return {f"x-ratelimit-{name}-{what}": value for name, value in named.items()}


def _duration(seconds: float) -> str:
    """Return a time as OpenAI writes it: 120ms, 8.64s, 1m30s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
