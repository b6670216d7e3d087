"""After a training: its time against the estimate, and whether more passes would help."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from raypath.components.data.wording import plural
from raypath.components.training.params import ResolvedParams

RISING = 0.002
"""Gain of the score in the last pass, as a share of the score, from which more passes are worth a try."""


@dataclass
class Outlook:
    """Observes a training: `evaluated` with each score on valid, then `report` at the end.

    seconds: estimated time of all passes; 0 for none.
    """

    params: ResolvedParams
    seconds: float = 0.0
    scores: list[tuple[int, float]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def evaluated(self, step: int, score: float) -> None:
        """Record the score of a validation pass; higher is better."""
        self.scores.append((step, score))

    def report(self, step: int, steps: int, log: logging.Logger) -> Mapping[str, float]:
        """Log two sentences, on time and on passes; return the numbers. step: the last of `steps` that were planned."""
        took = time.monotonic() - self.started
        numbers = {"seconds": took}
        if self.seconds and step:
            # A training that stopped early ran a part of the steps.
            expected = self.seconds * step / steps
            numbers |= {"estimated_seconds": expected, "estimate_error": took / expected - 1}
            log.info(
                "fine-tuning took %.0f s; the estimate for its %s was %.0f s", took, plural(step, "step"), expected
            )
        if sentence := self.more_passes(step, steps):
            log.info("%s", sentence)
        return {f"training/{name}": value for name, value in numbers.items()}

    def more_passes(self, step: int, steps: int) -> str:
        """Say whether more passes would help; "" for fewer than two validation passes."""
        if len(self.scores) < 2:
            return ""
        best = max(score for _, score in self.scores)
        last, before = self.scores[-1][1], max(score for _, score in self.scores[:-1])
        if step < steps:
            return f"more epochs would not help: the score stopped rising after {len(self.scores)} validation passes"
        if last >= best and last - before > RISING * abs(best):
            more = self.params.epochs + max(1, self.params.epochs // 2)
            return f"more epochs may help: the score still rose in the last one; try -s finetune.epochs={more}"
        return "more epochs would hardly help: the score did not rise in the last one"
