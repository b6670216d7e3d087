"""Usage of the holder of a key: GET /usage."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from datetime import date as Date
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel

from raypath.components.serving.api.openapi import error_responses
from raypath.components.serving.metering.holder import Key
from raypath.components.serving.metering.usage import UsageTotals, read_usage
from raypath.components.serving.spec import EndpointSpec


class UsageEntry(BaseModel):
    """Usage of a key, a day or a model."""

    group: str
    """Id of the key, the day, or the model."""
    name: str
    """Name of the key, by key."""
    requests: int
    rejected: int
    errors: int
    tokens: int
    generated_tokens: int
    cached_tokens: int
    compute_seconds: float
    price: float


class UsageReport(BaseModel):
    """Usage since a day: of the tenant for a key with a role, else of the key alone."""

    tenant: str
    """"" for the home's own keys."""
    since: Date
    usage: list[UsageEntry]


def add_usage(api: FastAPI, spec: EndpointSpec) -> None:
    """Add the route of usage, where keys are checked."""
    if not spec.access:
        return
    folder, reading = Path(spec.usage) if spec.usage else Path(spec.access) / "usage", asyncio.Lock()

    @api.get("/usage", responses=error_responses(422))
    async def usage(
        request: Request, by: Literal["key", "day", "model"] = "key", since: Annotated[Date | None, Query()] = None
    ) -> UsageReport:
        """Usage since a day, by default the first of this month, in UTC; it is written every ten seconds."""
        holder: Key = request.scope["raypath.holder"]
        first = since or datetime.now(UTC).date().replace(day=1)
        begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
        tenant = None if holder.is_home_admin else holder.tenant or ""
        # A key without a role is a client's, which is not to see what the others do.
        key = None if holder.role or holder.is_home_admin else holder.id
        async with reading:  # one at a time: the files of a year are many
            rows = await asyncio.to_thread(read_usage, folder, begin, by=by, tenant=tenant, key=key)
        found = [UsageEntry(group=row.what, name=row.name, **_sums(row.sums)) for row in rows]
        return UsageReport(tenant=holder.tenant or "", since=first, usage=found)


def _sums(sums: UsageTotals) -> dict[str, float]:
    return vars(sums)
