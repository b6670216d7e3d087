"""Risks of data, and legal risks."""

from __future__ import annotations

from collections.abc import Iterator

from raypath.components.risk.assessment import Facts, Level, Risk


def risks(facts: Facts) -> Iterator[Risk]:
    """Yield the risks of data and the legal ones."""
    yield from _personal(facts)
    yield from _faults(facts)
    yield from _files(facts)
    yield from _legal(facts)


def _personal(facts: Facts) -> Iterator[Risk]:
    for run in facts.evidence.runs:
        if run.found_persons and run.settings.get("redact.enabled") is not True:
            kinds = ", ".join(f"{kind} in {rows:,} rows" for kind, rows in run.found_persons.items())
            yield Risk(
                id=f"personal-data/{run.workflow}",
                area="data",
                what="Personal data leaks through the model, a report or a lost disk.",
                likelihood=Level.MEDIUM,
                impact=Level.HIGH,
                evidence=f"run {run.id}: {kinds}; redact.enabled is off",
                remedy=f"raypath run {run.workflow} -s redact.enabled=true",
            )
    for each in facts.evidence.champions:
        if each.forgotten:
            yield Risk(
                id=f"forgotten/{each.name}",
                area="legal",
                what="A person who asked to be forgotten is still in a model.",
                likelihood=Level.HIGH,
                impact=Level.HIGH,
                evidence=f"{each.name} version {each.version} was trained on {each.forgotten} forgotten subjects",
                remedy="train it again; the records of its data are gone, so that the same command does",
            )


def _faults(facts: Facts) -> Iterator[Risk]:
    for run in facts.evidence.served:
        if run.data_errors:
            yield Risk(
                id=f"data-errors/{run.endpoint}",
                area="data",
                what="The metrics are better than the model, or it learned what is not there in service.",
                likelihood=Level.HIGH,
                impact=Level.MEDIUM,
                evidence=f"the data report of run {run.id} has {run.data_errors} errors",
                remedy="open the report (raypath runs last); raypath inspect DATA --apply FILE writes the settings",
            )


def _files(facts: Facts) -> Iterator[Risk]:
    store = facts.evidence.store
    if store.open_files:
        yield Risk(
            id="open-files",
            area="data",
            what="Other users of the machine read data and keys.",
            likelihood=Level.MEDIUM,
            impact=Level.HIGH,
            evidence=f"readable by others: {', '.join(store.open_files[:3])}",
            remedy=f"chmod -R go= {store.place}",
        )
    if facts.evidence.runs and store.encrypted is not True:
        yield Risk(
            id="not-encrypted",
            area="data",
            what="Whoever gets the disk reads the data.",
            likelihood=Level.LOW,
            impact=Level.HIGH,
            evidence=store.encryption,
            remedy="raypath encryption init, or an encrypted volume",
        )
    if facts.evidence.runs and not facts.evidence.retention.days:
        yield Risk(
            id="kept-for-ever",
            area="data",
            what="Data is kept for longer than it is needed.",
            likelihood=Level.HIGH,
            impact=Level.LOW,
            evidence="no retention time is set",
            remedy="raypath retention set predictions=30 artifacts=180",
        )
    listener = facts.evidence.listener
    if listener and not facts.evidence.listener_tls:
        yield Risk(
            id="plain-http",
            area="data",
            what="Keys and texts are read on the way.",
            likelihood=Level.MEDIUM,
            impact=Level.HIGH,
            evidence=f"{listener} is served without TLS",
            remedy="raypath up --listen ADDRESS:PORT --tls FILE",
        )


def _legal(facts: Facts) -> Iterator[Risk]:
    """Yield one risk for all regimes: which of them concern the project only people know."""
    wanted = [each for each in facts.open_items if each.high]
    if not wanted:
        return
    worst = max(wanted, key=lambda each: each.high)
    counts = ", ".join(f"{each.regime} {each.high} of {each.all}" for each in wanted)
    yield Risk(
        id="compliance",
        area="legal",
        what="An authority or a client asks for what cannot be shown.",
        likelihood=Level.MEDIUM if worst.high < 10 else Level.HIGH,
        impact=Level.HIGH,
        evidence=f"open items of severity high: {counts}",
        remedy=f"raypath comply review --regime {worst.regime}; -s regimes=gdpr for those that concern you",
    )
