"""Counts of a live test. They add up over replicas, and hold neither texts nor predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt


class Trials(BaseModel):
    """Requests to one version."""

    model_config = ConfigDict(extra="ignore")

    requests: NonNegativeInt = 0
    failed: NonNegativeInt = 0

    def add(self, failed: bool) -> None:
        """Count one request."""
        self.requests += 1
        self.failed += failed


class Moments(BaseModel):
    """Number, sum and sum of squares of a quantity."""

    model_config = ConfigDict(extra="ignore")

    count: NonNegativeInt = 0
    total: float = 0.0
    squares: NonNegativeFloat = 0.0

    def add(self, value: float) -> None:
        """Add one observation."""
        self.count += 1
        self.total += value
        self.squares += value * value

    @property
    def ratio(self) -> float:
        """Geometric mean of ratios whose logarithms were added; there is at least one."""
        return math.exp(self.total / self.count)


class LiveCounts(BaseModel):
    """Counts of one replica, or of all."""

    model_config = ConfigDict(extra="ignore")

    requests: NonNegativeInt = 0
    """Requests that both versions answered."""
    agreed: NonNegativeFloat = 0.0
    """Sum over these requests of the share of inputs with the same prediction."""
    latency: Moments = Moments()
    """Of log(challenger's seconds / champion's seconds) of these requests; of language models, seconds a token."""
    tokens: Moments = Moments()
    """Of log(challenger's tokens / champion's tokens) of these requests, for language models."""
    champion: Trials = Trials()
    challenger: Trials = Trials()
    skipped: NonNegativeInt = 0
    """Requests that were not compared since the replica was busy."""

    def add_trials(self, champion: bool, challenger: bool) -> None:
        """Count a request that both versions ran, and whether each failed."""
        self.champion.add(champion)
        self.challenger.add(challenger)

    def add_pair(self, agreed: float, champion: float, challenger: float) -> None:
        """Count a request that both versions answered, in so many seconds each."""
        self.requests += 1
        self.agreed += agreed
        self.latency.add(math.log(max(challenger, 1e-6) / max(champion, 1e-6)))

    def add_responses(self, agreed: float, champion: tuple[float, int], challenger: tuple[float, int]) -> None:
        """Count a request to which both versions responded: the seconds and the tokens of each response."""
        (mine, before), (theirs, after) = ((seconds, max(tokens, 1)) for seconds, tokens in (champion, challenger))
        self.add_pair(agreed, mine / before, theirs / after)
        self.tokens.add(math.log(after / before))


def merged(counts: Iterable[LiveCounts]) -> LiveCounts:
    """Add up the counts of replicas."""
    total = LiveCounts()
    for each in counts:
        for mine, theirs in ((total.champion, each.champion), (total.challenger, each.challenger)):
            mine.requests += theirs.requests
            mine.failed += theirs.failed
        for sums, more in ((total.latency, each.latency), (total.tokens, each.tokens)):
            sums.count += more.count
            sums.total += more.total
            sums.squares += more.squares
        total.requests += each.requests
        total.agreed += each.agreed
        total.skipped += each.skipped
    return total
