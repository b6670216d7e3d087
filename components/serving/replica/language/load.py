"""Load of a language model in seconds and tokens, estimated from its recent throughput.

Responses are generated side by side, so that a new one is not behind the others but among them: it waits for the
prompts that are not read yet, and then shares the engine. Its delay is the time that its tokens take among the others,
less the time that they take alone. For an engine with fewer places than responses the sum is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import Pace

WINDOW = 1.0
"""Seconds over which throughput is measured."""
PARALLEL = 16
"""Responses up to which an engine that was not measured at more is expected to be as fast for each of them."""
FIRST_RESPONSE = 256
"""Expected tokens of a response before there was one, if it may have that many."""
_STEP = 0.0005
"""Seconds that pass between two steps at least: a window ends with a step, whose responses are counted one by one."""
_SMOOTHING = 0.3
_LONGEST = 10 * WINDOW
"""Seconds after which a window ends although there was little time for new tokens beside its prompts."""
_LEAST_SHARE = 0.1
"""Share of such a window that counts as time for new tokens."""


@dataclass(eq=False)
class PendingResponse:
    """Response that is not complete. limit: most tokens that it may have."""

    prompt: int
    limit: int
    generated: int = 0
    is_read: bool = False
    """The prompt was read: the first token is there."""


class GenerationLoad:
    """Throughput, and the responses that are not complete. Runs on one event loop.

    clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.prompt_speed = 0.0
        """Tokens a second of prompts, while nothing else is computed; 0 while unknown."""
        self.response_tokens = 0.0
        """Tokens of a recent response; 0 before there was one."""
        self._pending: set[PendingResponse] = set()
        self._speeds: dict[int, tuple[float, float]] = {}
        """Responses at a time, and new tokens a second of all of them, by the power of two of the former."""
        self._uncached = 1.0
        """Share of the tokens of recent prompts that were not in the prefix cache."""
        self._began = self._last = 0.0
        """Beginning of the window, and its last count."""
        self._prompt_tokens = self._new_tokens = self._side_by_side = 0

    @property
    def open(self) -> int:
        """Responses that are not complete."""
        return len(self._pending)

    @property
    def tokens(self) -> int:
        """Tokens that wait: of prompts that are not read, and those that responses are expected to have yet."""
        return sum(map(self.waiting, list(self._pending)))

    def waiting(self, pending: PendingResponse) -> int:
        """Return the tokens that wait of one response; 0 of one that has ended."""
        if pending not in self._pending:
            return 0
        expected = max(int(self._expected(pending.limit)), min(pending.generated + 1, pending.limit))
        return (0 if pending.is_read else pending.prompt) + expected - pending.generated

    def calibrate(self, pace: Pace) -> None:
        """Set the speed of one response at a time, unless it is known better."""
        self.prompt_speed = self.prompt_speed or pace.prompt
        self._speeds.setdefault(0, (1.0, pace.response))

    def start(self, prompt: int, limit: int) -> PendingResponse:
        """Begin a response. limit: most tokens that it may have."""
        if not self._pending:
            self._begin_window(self.clock())
        pending = PendingResponse(prompt, limit)
        self._pending.add(pending)
        return pending

    def count(self, pending: PendingResponse, tokens: int, cached: int = 0) -> None:
        """Count new tokens of a response. cached: tokens of its prompt from the prefix cache, by its first token."""
        now = self.clock()
        if now - self._last > _STEP and self._measure(self._last - self._began):
            self._begin_window(self._last)
        self._last = now
        if tokens and not pending.is_read:
            pending.is_read = True
            self._prompt_tokens += max(pending.prompt - cached, 0)
            self._uncached = _smooth(self._uncached, 1 - min(cached / max(pending.prompt, 1), 1.0))
        pending.generated += tokens
        self._new_tokens += tokens
        self._side_by_side += tokens * self.open

    def end(self, pending: PendingResponse) -> None:
        """End a response, whether or not it is complete."""
        self._pending.discard(pending)
        if pending.generated:
            self.response_tokens = _smooth(self.response_tokens, float(pending.generated))

    def wait(self, limit: int = 0) -> float:
        """Return the seconds by which the responses in progress delay a new one; 0 while unknown.

        limit: most tokens of the new one; 0 takes those of a recent response.
        """
        together = self.open + 1
        if together == 1 or not self._speeds:
            return 0.0
        prompts = sum(each.prompt for each in self._pending if not each.is_read) * self._uncached
        reading = prompts / self.prompt_speed if self.prompt_speed else 0.0
        slower = together / self._speed(together) - 1 / self._speed(1)
        return reading + self._expected(limit or FIRST_RESPONSE) * max(slower, 0.0)

    def _expected(self, limit: int) -> float:
        """Return the tokens that a response with this limit is expected to have."""
        return min(self.response_tokens or FIRST_RESPONSE, limit)

    def _speed(self, together: int) -> float:
        """Return the new tokens a second of this many responses together, by the nearest number that was measured."""
        smaller = [each for each in self._speeds.values() if each[0] <= together]
        if not smaller:
            known, speed = min(self._speeds.values())
            return speed * together / known
        known, speed = max(smaller)
        return speed * max(min(together, PARALLEL) / known, 1.0)

    def _begin_window(self, now: float) -> None:
        self._prompt_tokens = self._new_tokens = self._side_by_side = 0
        self._began = self._last = now

    def _measure(self, passed: float) -> bool:
        """Learn from a window; returns False if it is too short. The time of its prompts is not that of new tokens."""
        if passed < WINDOW or not self._new_tokens:
            return False
        reading = self._prompt_tokens / self.prompt_speed if self.prompt_speed else 0.0
        if passed - reading < WINDOW / 2 and passed < _LONGEST:
            return False
        if self.prompt_speed:
            self.prompt_speed = max(self.prompt_speed, self._prompt_tokens / passed)  # several are read together
        speed = self._new_tokens / max(passed - reading, passed * _LEAST_SHARE)
        together = self._side_by_side / self._new_tokens
        power = int(together).bit_length() - 1
        before = self._speeds.get(power, (together, speed))
        self._speeds[power] = _smooth(before[0], together), _smooth(before[1], speed)
        return True


def _smooth(before: float, now: float) -> float:
    return now if not before else before + _SMOOTHING * (now - before)
