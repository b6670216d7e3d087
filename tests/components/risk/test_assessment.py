"""Risks by area in both directions, and the figures of the business."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from raypath.components.compliance.evidence import (
    AuditEvidence,
    BackupEvidence,
    Evidence,
    ForgettingEvidence,
    RetentionEvidence,
    RunEvidence,
    StoreEvidence,
    VersionEvidence,
)
from raypath.components.risk.assess import assess
from raypath.components.risk.assessment import Assessment, Facts, Level, OpenItems
from raypath.components.risk.costs import Costs, Metered, business
from raypath.components.risk.page import figures, render

NOW = datetime(2026, 11, 30, tzinfo=UTC)
RUN = RunEvidence(
    id="r1", workflow="text_classification", ended=NOW, settings={}, endpoint="topics", test_rows=1_000, data_rows=5_000
)
CHAMPION = VersionEvidence(name="topics", version=2, champion=True, previous=1)
SAFE: dict[str, Any] = {
    "runs": (RUN,),
    "versions": (CHAMPION,),
    "audit": AuditEvidence(records=9, elsewhere="s3://other/anchors"),
    "backup": BackupEvidence(place="b", made=NOW, verified=NOW),
    "store": StoreEvidence(place="h", encrypted=True, encryption="all files are sealed"),
    "retention": RetentionEvidence(days={"predictions": 30}),
    "forgetting": ForgettingEvidence(),
}
COSTS = Costs(machine_hour=1.0, fixed_month=270.0, people=3)
USAGE = Metered(days=30, requests=1_000_000, compute_seconds=100_000, revenue=2_000.0, largest_client=0.3)


def _assess(
    costs: Costs = COSTS, usage: Metered = USAGE, items: int = 0, accounts: int = 3, **changes: Any
) -> Assessment:
    evidence = Evidence(home="h", at=NOW, **{**SAFE, **changes})
    open_items = (OpenItems(regime="gdpr", high=items, all=items + 1),)
    return assess(
        Facts(
            evidence=evidence,
            costs=costs,
            usage=usage,
            business=business(costs, usage),
            open_items=open_items,
            accounts=accounts,
        )
    )


def test_a_safe_project_has_no_risks() -> None:
    assert _assess().risks == ()


@pytest.mark.parametrize(
    ("id", "area", "changes"),
    [
        ("costs-unknown", "business", {"costs": Costs(people=3)}),
        ("no-prices", "business", {"usage": USAGE.model_copy(update={"revenue": 0.0})}),
        ("thin-margin", "business", {"usage": USAGE.model_copy(update={"revenue": 900.0})}),
        ("break-even-out-of-reach", "business", {"usage": USAGE.model_copy(update={"revenue": 20.0})}),
        ("one-client", "business", {"usage": USAGE.model_copy(update={"largest_client": 0.6})}),
        ("rejected-requests", "technical", {"usage": USAGE.model_copy(update={"rejected": 100_000})}),
        ("failed-requests", "technical", {"usage": USAGE.model_copy(update={"errors": 100_000})}),
        ("little-reserve", "technical", {"usage": USAGE.model_copy(update={"compute_seconds": 2e6})}),
        ("few-test-rows/topics", "technical", {"runs": (RUN.model_copy(update={"test_rows": 60}),)}),
        ("worse-slices/topics", "technical", {"runs": (RUN.model_copy(update={"worse": ("language zh",)}),)}),
        ("old-model/topics", "technical", {"runs": (RUN.model_copy(update={"ended": NOW - timedelta(days=200)}),)}),
        ("data-errors/topics", "data", {"runs": (RUN.model_copy(update={"data_errors": 2}),)}),
        (
            "personal-data/text_classification",
            "data",
            {"runs": (RUN.model_copy(update={"personal_data": {"email": 3}}),)},
        ),
        ("unsigned/topics", "technical", {"versions": (CHAMPION.model_copy(update={"problem": "altered"}),)}),
        ("no-way-back/topics", "technical", {"versions": (CHAMPION.model_copy(update={"previous": 0}),)}),
        ("forgotten/topics", "legal", {"versions": (CHAMPION.model_copy(update={"forgotten": 1}),)}),
        ("compliance", "legal", {"items": 2}),
        ("backups", "technical", {"backup": BackupEvidence()}),
        ("backups", "technical", {"backup": BackupEvidence(place="b", made=NOW)}),
        ("one-person", "team", {"costs": COSTS.override({"people": 1})}),
        ("one-person", "team", {"costs": COSTS.override({"people": 0}), "accounts": 1}),
        ("log-in-one-place", "team", {"audit": AuditEvidence(records=1)}),
        ("open-files", "data", {"store": StoreEvidence(place="h", encrypted=True, encryption="", open_files=("a",))}),
        ("not-encrypted", "data", {"store": StoreEvidence(place="h", encrypted=None, encryption="none is seen")}),
        ("kept-for-ever", "data", {"retention": RetentionEvidence(days={})}),
        ("plain-http", "data", {"listener": "0.0.0.0:80"}),
    ],
)  # fmt: skip
def test_each_risk_follows_from_its_evidence(id: str, area: str, changes: dict[str, Any]) -> None:
    found = {each.id: each for each in _assess(**changes).risks}
    assert found[id].area == area
    assert found[id].evidence
    assert found[id].remedy


def test_redaction_lowers_the_risk_of_personal_data() -> None:
    run = RUN.model_copy(update={"personal_data": {"email": 3}, "settings": {"redact.enabled": True}})
    assert _assess(runs=(run,)).risks == ()


def test_the_worst_come_first() -> None:
    found = _assess(items=12, backup=BackupEvidence(), retention=RetentionEvidence(days={}))
    assert [(each.id, each.score) for each in found.risks] == [
        *(("compliance", 9), ("backups", 6), ("kept-for-ever", 3))
    ]
    assert [each.id for each in found.at_least(6)] == ["compliance", "backups"]
    assert found.risks[1].likelihood is Level.MEDIUM


def test_figures_of_a_month() -> None:
    found = business(COSTS, Metered(days=30, requests=60_000, compute_seconds=6_000, revenue=1_200.0))
    month = 730 / 720
    assert found.requests_month == pytest.approx(60_000 * month)
    assert found.revenue_month == pytest.approx(1_200 * month)
    assert found.cost_month == pytest.approx(1_000)
    assert found.price_1000 == pytest.approx(20)
    assert found.cost_1000 == pytest.approx(1_000 / (60 * month))
    assert found.compute_1000 == pytest.approx(100 / 3600)
    assert found.margin == pytest.approx(1 - 1_000 / (1_200 * month))
    assert found.break_even == pytest.approx(50_000)
    assert found.capacity == pytest.approx(730 * 3600 / 0.1)
    assert found.utilisation == pytest.approx(6_000 / (30 * 86_400))


def test_what_is_not_known_is_said() -> None:
    found = business(Costs(), Metered(days=30))
    assert (found.margin, found.break_even, found.cost_1000, found.capacity) == (None, None, None, None)
    assert ("margin", "not known") in figures(found)


def test_the_page_escapes_and_shows_all() -> None:
    run = RUN.model_copy(update={"worse": ("<script>alert(1)</script>",)})
    shown = render(_assess(runs=(run,)))
    assert "<script>alert(1)" not in shown
    assert "&lt;script&gt;" in shown
    assert "break-even, requests a month" in shown
