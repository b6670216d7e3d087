"""A replica that follows the registry: which versions it is to hold is what the aliases say, asked every few seconds.

So a promotion, or a rollback, needs nobody to tell the service. Where MLflow does not answer, or the new version is
refused, what is in service stays there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from raypath.components.core.errors import RaypathError
from raypath.components.serving.model_versions import OTHER, LoadFault, ReplicaPlan
from raypath.components.serving.replica_plan import plan_now

if TYPE_CHECKING:
    from raypath.components.serving.spec import EndpointSpec

log = logging.getLogger("ray.serve")
RETRY = 60.0
"""Seconds after which a version that was not taken is tried again."""


async def follow(spec: EndpointSpec, plan: ReplicaPlan | None, take: Callable[[ReplicaPlan], Awaitable[bool]]) -> None:
    """Give `take` each plan that differs from the last one, for ever; it says whether all of it is held now.

    What could not be held is tried again after a minute: a version's files may have been on their way. Raises nothing.
    """
    again = math.inf
    while True:
        # Replicas that start together would ask together.
        await asyncio.sleep(spec.follow * random.uniform(0.8, 1.2))
        try:
            wanted = await asyncio.to_thread(plan_now, spec)
            if wanted.main.version and (wanted != plan or time.monotonic() > again):
                plan, held = wanted, await take(wanted)
                again = math.inf if held else time.monotonic() + RETRY
        except RaypathError as error:
            log.warning("the registry was not heard, what is in service stays: %s", error.what)
        except Exception:
            # A follower that ended would leave this replica at an old version without a word.
            log.exception("the registry was not heard, what is in service stays")


def give_back(spec: EndpointSpec, faults: Mapping[str, LoadFault], held: Callable[[str], int]) -> None:
    """Take the alias champion from versions that were refused here, if they still have it. Raises nothing.

    held: the version of a model that is in service instead, 0 for none.
    """
    from raypath.components.registry import aliases

    for role, fault in faults.items():
        if fault.rejected and (role == "main" or role.startswith(OTHER)):
            try:
                now = aliases.demote(spec.tracking, fault.name, fault.version, held(fault.name))
                log.warning("version %s of %s was rejected; version %s is champion", fault.version, fault.name, now)
            except RaypathError as error:
                log.warning("version %s of %s keeps its alias: %s", fault.version, fault.name, error.what)
