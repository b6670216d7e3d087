"""Registry watcher: poll the aliases every few seconds, so that replicas follow a promotion or a rollback.

If MLflow does not respond or a new version is rejected, the version in service stays.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from raypath.components.core.errors import RaypathError
from raypath.components.registry import aliases
from raypath.components.registry.snapshot import registry_snapshot
from raypath.components.serving.model_versions import LoadFault, ReplicaPlan
from raypath.components.serving.replica_plan import build_plan

if TYPE_CHECKING:
    from raypath.components.serving.spec import EndpointSpec

log = logging.getLogger("ray.serve")
RETRY_SECONDS = 60.0
"""Seconds before a version that could not be loaded is tried again."""


def read_plan(spec: EndpointSpec) -> ReplicaPlan:
    """Build the plan that the registry's aliases name now. Raises Unavailable if MLflow does not respond."""
    with registry_snapshot(spec.tracking) as registry:
        return build_plan(registry, spec)


async def watch_registry(
    spec: EndpointSpec, plan: ReplicaPlan | None, apply: Callable[[ReplicaPlan], Awaitable[bool]]
) -> None:
    """Poll the registry forever and call `apply` with each new plan; raises nothing.

    `apply` returns True if all versions are loaded. Otherwise the same plan is applied again after a minute: the files
    of a version may still have been uploading.
    """
    retry_at = math.inf
    while True:
        # Jitter: replicas that start together would poll together.
        await asyncio.sleep(spec.poll_seconds * random.uniform(0.8, 1.2))
        try:
            wanted = await asyncio.to_thread(read_plan, spec)
            if wanted.main.version and (wanted != plan or time.monotonic() > retry_at):
                plan, complete = wanted, await apply(wanted)
                retry_at = math.inf if complete else time.monotonic() + RETRY_SECONDS
        except RaypathError as error:
            log.warning("the registry could not be read, the versions in service stay: %s", error.what)
        except Exception:
            # A watcher that ended would leave this replica at an old version silently.
            log.exception("the registry could not be read, the versions in service stay")


def demote_rejected(spec: EndpointSpec, faults: Iterable[LoadFault], version_of: Callable[[str], int]) -> None:
    """Take the alias champion from versions that this replica rejected, if they still have it. Raises nothing.

    Args:
        faults: Of the main version and of additional models.
        version_of: Returns the version of a model that is in service instead, 0 for none.
    """
    for fault in faults:
        if fault.rejected:
            try:
                now = aliases.demote(spec.tracking, fault.name, fault.version, version_of(fault.name))
                log.warning("version %s of %s was rejected; version %s is champion", fault.version, fault.name, now)
            except RaypathError as error:
                log.warning("version %s of %s keeps its alias: %s", fault.version, fault.name, error.what)
