"""Share of a key's rate limit that one replica grants while the number of replicas follows the load."""

from __future__ import annotations

import asyncio
import logging

from raypath.components.serving.middleware.rate_limit import RateLimiter
from raypath.components.serving.replica.status import running_replicas
from raypath.components.serving.spec import EndpointSpec

POLL_SECONDS = 15.0
log = logging.getLogger("ray.serve")


async def update_share(limiter: RateLimiter, spec: EndpointSpec) -> None:
    """Set the limiter's share to 1 / running replicas, periodically; 1 / max_replicas if their number is unknown."""
    while True:
        try:
            running = await asyncio.to_thread(running_replicas, spec.name)
        except Exception as error:  # noqa: BLE001 - Serve's controller may be restarting
            log.warning("the number of replicas is unknown: %s", type(error).__name__)
            running = 0
        limiter.share = 1 / (min(running, spec.max_replicas) or spec.max_replicas)
        await asyncio.sleep(POLL_SECONDS)
