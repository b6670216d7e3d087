"""After a training: its time against the estimate, whether it diverged, and whether more passes would help."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from raypath.components.data.wording import plural
from raypath.components.training.params import ResolvedParams

RISING = 0.002
"""Gain of the score in the last pass, as a share of the score, from which more passes are worth a try."""
DIVERGED = 1.1
"""Loss of the last steps relative to that of the first ones from which a training has diverged."""


@dataclass
class Outlook:
    """Observes a training: `trained` with the loss of each step, `evaluated` with each score on valid, then `report`.

    seconds: estimated time of all passes; 0 for none.
    """

    params: ResolvedParams
    seconds: float = 0.0
    scores: list[tuple[int, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def trained(self, loss: float) -> None:
        """Record the loss of a step."""
        self.losses.append(loss)

    def evaluated(self, step: int, score: float) -> None:
        """Record the score of a validation pass; higher is better."""
        self.scores.append((step, score))

    def report(self, step: int, steps: int, log: logging.Logger) -> Mapping[str, float]:
        """Log sentences on time, and on divergence or passes; return the numbers.

        step: the last of `steps` that were planned.
        """
        took = time.monotonic() - self.started
        numbers = {"seconds": took}
        if self.seconds and step:
            # A training that stopped early ran a part of the steps.
            expected = self.seconds * step / steps
            numbers |= {"estimated_seconds": expected, "estimate_error": took / expected - 1}
            log.info(
                "fine-tuning took %.0f s; the estimate for its %s was %.0f s", took, plural(step, "step"), expected
            )
        if warning := self.divergence():
            log.warning("%s", warning)
        elif sentence := self.more_passes(step, steps):
            log.info("%s", sentence)
        return {f"training/{name}": value for name, value in numbers.items()}

    def divergence(self) -> str:
        """Say that the loss rose; "" if it did not, or for fewer than four steps."""
        few = max(1, len(self.losses) // 10)
        first, last = (sum(part) / few for part in (self.losses[:few], self.losses[-few:]))
        if len(self.losses) < 4 or last <= DIVERGED * max(first, 0):
            return ""
        rate = self.params.lr
        what = f"training diverged: its loss rose from {first:.3g} to {last:.3g}"
        return f"{what}; lower finetune.lr ({rate:g}), such as -s finetune.lr={rate / 10:g}"

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
