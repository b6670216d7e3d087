"""Find all risks that the evidence shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raypath.components.risk import business, operation, stored
from raypath.components.risk.assessment import Assessment, Facts, Risk

_FINDERS: tuple[Callable[[Facts], Iterator[Risk]], ...] = (operation.risks, business.risks, stored.risks)


def assess(facts: Facts) -> Assessment:
    """Return the risks of a project, the highest score first."""
    found = [each for finder in _FINDERS for each in finder(facts)]
    found.sort(key=lambda each: (-each.score, each.area, each.id))
    evidence = facts.evidence
    return Assessment(home=evidence.home, at=evidence.at, risks=tuple(found), business=facts.business)
