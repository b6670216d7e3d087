"""Retry with exponential backoff, for errors that are marked as transient (`RaypathError.retry`)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from raypath.components.core.errors import RaypathError

T = TypeVar("T")


def backoff(attempt: int, base: float = 1.0, *, jitter: bool = False) -> float:
    """Return the seconds to wait after a failed attempt, counted from 0: `base` doubled each time.

    jitter: multiply by a random number below 1, so that clients that failed together do not retry together.
    """
    delay = base * 2.0**attempt
    return delay * random.random() if jitter else delay


def retry(
    work: Callable[[], T],
    retries: int,
    *,
    base: float = 1.0,
    jitter: bool = False,
    on_retry: Callable[[RaypathError, float], None] | None = None,
) -> T:
    """Return the result of `work`, called again after a transient error, `retries` times at most.

    Other errors, and the last transient one, are raised. on_retry: called with the error and the delay in seconds.
    """
    for attempt in range(retries + 1):
        try:
            return work()
        except RaypathError as error:
            if not error.retry or attempt == retries:
                raise
            delay = backoff(attempt, base, jitter=jitter)
            if on_retry is not None:
                on_retry(error, delay)
            time.sleep(delay)
    raise AssertionError("unreachable")
