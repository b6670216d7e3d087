"""Retries: transient errors only, a bounded number of times, with growing delays."""

import time
from collections.abc import Callable

import pytest

from raypath.components.core.errors import DataError, RaypathError, Unavailable
from raypath.components.data.sources.retry import backoff, retry


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays, which are not waited for."""
    delays: list[float] = []
    monkeypatch.setattr(time, "sleep", delays.append)
    return delays


def failing(*errors: Exception) -> Callable[[], str]:
    """A function that raises these errors, one a call, and then returns."""
    remaining = list(errors)

    def work() -> str:
        if remaining:
            raise remaining.pop(0)
        return "done"

    return work


def test_transient_errors_are_retried_with_growing_delays(slept: list[float]) -> None:
    reported: list[tuple[str, float]] = []

    def report(error: RaypathError, delay: float) -> None:
        reported.append((error.what, delay))

    work = failing(Unavailable("a"), Unavailable("b"))
    assert retry(work, 2, base=0.5, on_retry=report) == "done"
    assert slept == [0.5, 1.0]
    assert reported == [("a", 0.5), ("b", 1.0)]


def test_the_last_error_is_raised(slept: list[float]) -> None:
    with pytest.raises(Unavailable, match="c"):
        retry(failing(Unavailable("a"), Unavailable("b"), Unavailable("c")), 2)
    assert slept == [1.0, 2.0]


@pytest.mark.parametrize("error", [DataError("x"), FileNotFoundError("x")])
def test_other_errors_are_raised_at_once(slept: list[float], error: Exception) -> None:
    with pytest.raises(type(error)):
        retry(failing(error), 2)
    assert slept == []


def test_jitter_only_shortens_a_delay() -> None:
    assert all(0 <= backoff(3, jitter=True) < 8 for _ in range(100))
    assert len({backoff(3, jitter=True) for _ in range(10)}) > 1
