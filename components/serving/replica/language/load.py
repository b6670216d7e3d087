"""Queued work of a language model in seconds, estimated from its recent throughput."""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW = 1.0
"""Seconds over which throughput is measured."""
_SMOOTHING = 0.3
_FIRST_RESPONSE = 64.0
"""Expected tokens of a response before there was one."""


class GenerationLoad:
    """Throughput and size of recent responses. Runs on one event loop.

    clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.speed = 0.0
        """Tokens a second of prompts and responses, while responses are generated; 0 before the first window."""
        self.work = 0.0
        """Tokens of a recent request: its prompt and its response."""
        self.open = 0
        """Responses that are being generated or wait."""
        self._tokens, self._began = 0, 0.0

    def start(self) -> None:
        """Begin a response."""
        if not self.open:
            self._tokens, self._began = 0, self.clock()
        self.open += 1

    def count(self, tokens: int) -> None:
        """Count tokens that were processed."""
        self._tokens += tokens
        passed = self.clock() - self._began
        if passed >= WINDOW:
            self.speed = _smooth(self.speed, self._tokens / passed)
            self._tokens, self._began = 0, self.clock()

    def end(self, tokens: int) -> None:
        """End a response. tokens: of its prompt and what was generated; 0 for one that did not begin."""
        self.open -= 1
        if tokens:
            self.work = _smooth(self.work, float(tokens))

    def wait(self, waiting: int) -> float:
        """Return the seconds until as many requests have been answered as wait for a slot; 0 while unknown."""
        return waiting * (self.work or _FIRST_RESPONSE) / self.speed if self.speed else 0.0


def _smooth(before: float, now: float) -> float:
    return now if not before else before + _SMOOTHING * (now - before)
