"""Assessment of a project: its risks, the worst first, and the figures of the business."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from raypath.components.compliance.evidence import Evidence
from raypath.components.risk.costs import Business, Costs, Metered

Area = Literal["technical", "business", "legal", "data", "team"]
NO_ADVICE = "No legal or financial advice: levels follow from rules over evidence and the answers in risk.yaml."


class Level(IntEnum):
    """Likelihood or impact."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3

    @property
    def word(self) -> str:
        """Name in lower case."""
        return self.name.lower()


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Risk(_Model):
    """Something that may go wrong."""

    id: str
    area: Area
    what: str
    """What would happen, in one sentence."""
    likelihood: Level
    impact: Level
    evidence: str
    """What was found, in one sentence."""
    remedy: str
    """Command or sentence that lowers it."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def score(self) -> int:
        """Likelihood times impact, 1 to 9."""
        return int(self.likelihood * self.impact)


class OpenItems(_Model):
    """Open items of a regime, of severity high and in all."""

    regime: str
    high: int
    all: int


class Facts(_Model):
    """All that risks are found in."""

    evidence: Evidence
    costs: Costs
    usage: Metered
    business: Business
    open_items: tuple[OpenItems, ...] = ()
    accounts: int = 0
    """Accounts that acted on the home, by the audit log."""


class Assessment(_Model):
    """Risks of a project at a time."""

    home: str
    at: datetime
    risks: tuple[Risk, ...]
    """The highest score first."""
    business: Business
    advice: str = NO_ADVICE

    def at_least(self, score: int) -> list[Risk]:
        """Return the risks of this score or above."""
        return [each for each in self.risks if each.score >= score]
