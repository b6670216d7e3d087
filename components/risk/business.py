"""Business risks: prices, costs, clients and load, from the meter."""

from __future__ import annotations

from collections.abc import Iterator

from raypath.components.risk.assessment import Facts, Level, Risk

FEW_REQUESTS = 100
"""Requests below which rates say nothing."""


def risks(facts: Facts) -> Iterator[Risk]:
    """Yield the business risks."""
    if facts.evidence.served:
        yield from _money(facts)
    if facts.usage.requests >= FEW_REQUESTS:
        yield from _clients(facts)
        yield from _load(facts)


def _money(facts: Facts) -> Iterator[Risk]:
    figures, usage = facts.business, facts.usage
    if figures.cost_month is None:
        yield Risk(
            id="costs-unknown",
            area="business",
            what="Nobody knows whether a request costs more than it brings.",
            likelihood=Level.MEDIUM,
            impact=Level.MEDIUM,
            evidence="no costs are given",
            remedy="raypath risk -s machine_hour=0.40 -s fixed_month=300, or the same in risk.yaml",
        )
        return
    if usage.requests >= FEW_REQUESTS and not usage.revenue:
        yield Risk(
            id="no-prices",
            area="business",
            what="The service brings in nothing.",
            likelihood=Level.HIGH,
            impact=Level.MEDIUM,
            evidence=f"{usage.requests:,} requests were free; a month costs {figures.cost_month:,.2f}",
            remedy="raypath keys create NAME --price-per-1k-tokens PRICE, if it is to be sold",
        )
    if figures.margin is not None and figures.margin < 0.2:
        yield Risk(
            id="thin-margin",
            area="business",
            what="The service loses money." if figures.margin < 0 else "A small rise of costs takes the margin.",
            likelihood=Level.HIGH if figures.margin < 0 else Level.MEDIUM,
            impact=Level.HIGH,
            evidence=f"1,000 requests bring {figures.price_1000:,.2f} and cost {figures.cost_1000:,.2f}",
            remedy=f"break-even: {figures.break_even:,.0f} requests a month, of now {figures.requests_month:,.0f}",
        )
    if figures.break_even and figures.capacity and figures.break_even > figures.capacity:
        yield Risk(
            id="break-even-out-of-reach",
            area="business",
            what="The machines cannot compute as many requests as would pay for them.",
            likelihood=Level.HIGH,
            impact=Level.HIGH,
            evidence=f"break-even {figures.break_even:,.0f} requests a month, capacity {figures.capacity:,.0f}",
            remedy="raise prices, or lower the time of a request (registry.precision, shorter texts)",
        )


def _clients(facts: Facts) -> Iterator[Risk]:
    usage = facts.usage
    if usage.largest_client > 0.5:
        yield Risk(
            id="one-client",
            area="business",
            what="One client who leaves takes most of the business.",
            likelihood=Level.LOW if usage.largest_client < 0.8 else Level.MEDIUM,
            impact=Level.HIGH if usage.revenue else Level.LOW,
            evidence=f"key {usage.largest_name} has {usage.largest_client:.0%} of the "
            f"{'revenue' if usage.revenue else 'requests'}",
            remedy="more clients, or a contract with notice",
        )


def _load(facts: Facts) -> Iterator[Risk]:
    usage, figures = facts.usage, facts.business
    refused = usage.rejected / (usage.requests + usage.rejected)
    if refused > 0.01:
        yield Risk(
            id="rejected-requests",
            area="technical",
            what="Clients are turned away.",
            likelihood=Level.HIGH if refused > 0.05 else Level.MEDIUM,
            impact=Level.MEDIUM,
            evidence=f"{refused:.1%} of the requests were rejected, by limits or load",
            remedy="-s serve.max_replicas=N, or higher limits of the keys",
        )
    if figures.utilisation is not None and figures.utilisation > 0.6:
        yield Risk(
            id="little-reserve",
            area="technical",
            what="A peak of load meets machines that are busy.",
            likelihood=Level.MEDIUM if figures.utilisation < 0.8 else Level.HIGH,
            impact=Level.MEDIUM,
            evidence=f"the machines computed {figures.utilisation:.0%} of the time, on average",
            remedy="-s serve.max_replicas=N, or one more machine",
        )
    failed = usage.errors / usage.requests
    if failed > 0.01:
        yield Risk(
            id="failed-requests",
            area="technical",
            what="Clients get errors.",
            likelihood=Level.HIGH if failed > 0.05 else Level.MEDIUM,
            impact=Level.MEDIUM,
            evidence=f"{failed:.1%} of the admitted requests ended with a status of 400 or more",
            remedy="look at the log of the endpoint and at its metrics by status",
        )
