"""Technical risks of models and services, and risks of the team."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from raypath.components.risk.assessment import Facts, Level, Risk

FEW_TEST_ROWS = 200
OLD = timedelta(days=180)
"""Age of a model from which the data in service may be another."""
LATE = timedelta(days=7)
"""Age of a backup that is too old."""


def risks(facts: Facts) -> Iterator[Risk]:
    """Yield the technical risks and those of the team."""
    yield from _models(facts)
    yield from _quality(facts)
    yield from _backups(facts)
    yield from _team(facts)


def _models(facts: Facts) -> Iterator[Risk]:
    for each in facts.evidence.champions:
        if each.problem:
            yield Risk(
                id=f"unsigned/{each.name}",
                area="technical",
                what="A model that was tampered with is served.",
                likelihood=Level.MEDIUM,
                impact=Level.HIGH,
                evidence=f"{each.name} version {each.version}: {each.problem}",
                remedy=f"raypath models --sign {each.name} {each.version}, after a check of where it comes from",
            )
        if not each.previous:
            yield Risk(
                id=f"no-way-back/{each.name}",
                area="technical",
                what="A model that proves bad cannot be replaced by the one before.",
                likelihood=Level.LOW,
                impact=Level.MEDIUM,
                evidence=f"{each.name} version {each.version} is the first champion",
                remedy="a second version, promoted by the gate, makes `raypath rollback` possible",
            )


def _quality(facts: Facts) -> Iterator[Risk]:
    for run in facts.evidence.served:
        if run.test_rows is not None and run.test_rows < FEW_TEST_ROWS:
            yield Risk(
                id=f"few-test-rows/{run.endpoint}",
                area="technical",
                what="The model is worse than its metrics say.",
                likelihood=Level.MEDIUM if run.test_rows >= 50 else Level.HIGH,
                impact=Level.MEDIUM,
                evidence=f"{run.endpoint} was evaluated on {run.test_rows} rows",
                remedy="-s split.test=0.2, or a test file of its own with read.test",
            )
        if run.worse:
            yield Risk(
                id=f"worse-slices/{run.endpoint}",
                area="technical",
                what="A part of the users gets worse answers.",
                likelihood=Level.HIGH,
                impact=Level.MEDIUM,
                evidence=f"significantly worse: {', '.join(run.worse[:5])}",
                remedy="more rows of these slices; registry.slice_margin holds back versions that get worse there",
            )
        if facts.evidence.at - run.ended > OLD:
            yield Risk(
                id=f"old-model/{run.endpoint}",
                area="technical",
                what="What users send has changed since the training.",
                likelihood=Level.MEDIUM,
                impact=Level.MEDIUM,
                evidence=f"{run.endpoint} was trained {(facts.evidence.at - run.ended).days} days ago",
                remedy="evaluate it on rows of today; raypath schedule trains it regularly",
            )


def _backups(facts: Facts) -> Iterator[Risk]:
    backup, now = facts.evidence.backup, facts.evidence.at
    if not facts.evidence.runs:
        return
    late = backup.made is None or now - backup.made > LATE
    if late or backup.failed or backup.verified is None:
        age = "no backup was made" if backup.made is None else f"the last backup is {(now - backup.made).days} days old"
        yield Risk(
            id="backups",
            area="technical",
            what="A lost disk takes models, registry and API keys.",
            likelihood=Level.MEDIUM if late else Level.LOW,
            impact=Level.HIGH,
            evidence=backup.failed or (age if late else "no backup was verified"),
            remedy="raypath backup create PLACE, then raypath backup verify PLACE",
        )


def _team(facts: Facts) -> Iterator[Risk]:
    if facts.costs.people == 1 or (facts.costs.people == 0 and facts.accounts == 1):
        known = "one person can operate the service" if facts.costs.people else "one account did all that is logged"
        yield Risk(
            id="one-person",
            area="team",
            what="Nobody can mend the service while one person is away.",
            likelihood=Level.MEDIUM,
            impact=Level.HIGH if facts.evidence.served else Level.MEDIUM,
            evidence=known,
            remedy="a second person does a restore drill from the backup; -s people=2 says so",
        )
    if facts.evidence.runs and not facts.evidence.audit.elsewhere:
        yield Risk(
            id="log-in-one-place",
            area="team",
            what="Whoever administers the machine can replace the audit log as a whole.",
            likelihood=Level.LOW,
            impact=Level.MEDIUM,
            evidence="its anchors have no copy elsewhere",
            remedy="set RAYPATH_AUDIT_ANCHORS to a folder or bucket of somebody else",
        )
