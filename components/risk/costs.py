"""Costs of a project and revenue of its requests: risk.yaml or `-s`, and the usage that was metered."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from raypath.components.core.params import Params, Positive

HOURS_A_MONTH = 730.0
Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Costs(Params):
    """Answers of a project about money and people; amounts are in the currency of the prices of the API keys."""

    machine_hour: Money = 0.0
    """Price of an hour of a machine that serves; 0 if it is not known."""
    machines: Positive = 1
    """Machines that serve all the time."""
    fixed_month: Money = 0.0
    """Other costs of a month: people, licenses, storage."""
    people: Annotated[int, Field(ge=0)] = 0
    """People who can operate the service; 0 if it is not known."""
    regimes: tuple[str, ...] = ()
    """Regimes of `raypath comply` that concern the project; empty for all."""

    @property
    def month(self) -> float:
        """Cost of a month."""
        return self.machine_hour * HOURS_A_MONTH * self.machines + self.fixed_month


class Metered(BaseModel):
    """Usage of all endpoints of a home over the last days."""

    model_config = ConfigDict(frozen=True)

    days: float
    """Length of the window; less than asked for where the first request is younger."""
    requests: int = 0
    errors: int = 0
    rejected: int = 0
    tokens: int = 0
    compute_seconds: float = 0.0
    revenue: float = 0.0
    largest_client: float = 0.0
    """Share of the revenue, or of the requests if there is none, of the key with most."""
    largest_name: str = ""


class Business(BaseModel):
    """Figures of the business; None where what is needed for one is not known."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    days: float
    """Days of usage behind the figures."""
    requests_month: float
    """Requests of a month at this rate."""
    revenue_month: float
    cost_month: float | None
    price_1000: float | None
    """Revenue of 1,000 requests."""
    cost_1000: float | None
    """Cost of 1,000 requests, with the hours in which machines wait."""
    compute_1000: float | None
    """Cost of the machine's time in which 1,000 requests were computed."""
    margin: float | None
    """Revenue less cost, as a share of the revenue."""
    break_even: float | None
    """Requests of a month that pay for its cost, at today's price."""
    capacity: float | None
    """Requests of a month that the machines can compute, at today's time for one."""
    utilisation: float | None
    """Share of the machines' time in which they computed."""


def business(costs: Costs, usage: Metered) -> Business:
    """Return the figures of a month like the days that were metered."""
    scale = HOURS_A_MONTH / (usage.days * 24) if usage.days else 0.0
    requests, revenue = usage.requests * scale, usage.revenue * scale
    cost = costs.month or None
    price = usage.revenue / usage.requests if usage.requests else None
    seconds = usage.compute_seconds / usage.requests if usage.requests else 0.0
    available = costs.machines * HOURS_A_MONTH * 3600
    return Business(
        days=usage.days,
        requests_month=requests,
        revenue_month=revenue,
        cost_month=cost,
        price_1000=price * 1000 if price is not None else None,
        cost_1000=cost / requests * 1000 if cost and requests else None,
        compute_1000=seconds / 3600 * costs.machine_hour * 1000 if costs.machine_hour and usage.requests else None,
        margin=(revenue - cost) / revenue if cost and revenue else None,
        break_even=cost / price if cost and price else None,
        capacity=available / seconds if seconds else None,
        utilisation=usage.compute_seconds * scale / available if usage.requests else None,
    )
