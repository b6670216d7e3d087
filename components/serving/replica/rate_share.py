"""What share of a key's rate a replica grants, where their number follows the load: each counts for itself."""

from __future__ import annotations

import asyncio
import logging

from raypath.components.serving.middleware.rate_limit import RateLimiter
from raypath.components.serving.spec import EndpointSpec

PERIOD = 15.0
"""Seconds between two looks at how many replicas run."""
log = logging.getLogger("ray.serve")


async def update_share(rates: RateLimiter, spec: EndpointSpec) -> None:
    """Set the share to one of the replicas that run now, again and again; of the most there may be, if nobody knows."""
    from raypath.components.serving.replica.status import running_replicas

    while True:
        try:
            now = await asyncio.to_thread(running_replicas, spec.name)
        except Exception as error:  # noqa: BLE001 - Serve's controller may be starting again
            log.warning("how many replicas run is not known: %s", type(error).__name__)
            now = 0
        rates.share = 1 / (min(now, spec.replicas) or spec.replicas)
        await asyncio.sleep(PERIOD)
