"""Replica plans: the model versions that each replica loads, read from the registry's aliases."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import ReplicaPlan
    from raypath.components.serving.spec import EndpointSpec

if TYPE_CHECKING:
    from raypath.components.serving.spec import EndpointSpec


def plan_now(spec: EndpointSpec) -> ReplicaPlan:
    """What the aliases say at this moment. Raises DataError without a champion, Unavailable without MLflow."""
    from raypath.components.registry import aliases, tags
    from raypath.components.registry import client as registry
    from raypath.components.tracking.tags import PREVIOUS_CHAMPION

    with registry.mlflow_client(spec.tracking) as client:
        now = aliases.champion(client, spec.name)
        before = int(now.tags.get(PREVIOUS_CHAMPION) or 0) if now else 0
    main = _held(spec, spec.name, tags.CHAMPION)
    if main is None:
        return ReplicaPlan(main=ModelVersion(name=spec.name))
    alias, _, percent = spec.canary.partition(":")
    others = (_held(spec, name, tags.CHAMPION) for name in spec.also)
    return ReplicaPlan(
        main=main,
        before=ModelVersion(name=spec.name, version=before) if before and before != main.version else None,
        canary=_other(_held(spec, spec.name, alias), main),
        percent=float(percent or 0),
        shadow=_other(_held(spec, spec.name, spec.shadow), main),
        also=tuple(other for other in others if other is not None),
    )


def _held(spec: EndpointSpec, name: str, alias: str) -> ModelVersion | None:
    from raypath.components.registry.aliases import alias_target

    found = alias_target(spec.tracking, name, alias) if alias else None
    return ModelVersion(name=name, version=found[0], source=found[1]) if found else None


def _other(found: ModelVersion | None, main: ModelVersion) -> ModelVersion | None:
    return None if found is None or found.version == main.version else found


def plan_of(spec: EndpointSpec, version: int) -> ReplicaPlan:
    """What replicas of `spec` are to hold with this main version; canary, shadow and other models by their aliases.

    An alias that nothing holds, or that this very version holds, is left out. Raises DataError for an unknown version.
    """
    from raypath.components.registry.aliases import alias_target, previous_champion
    from raypath.components.registry.client import source_of
    from raypath.components.registry.tags import CHAMPION
    from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan
    from raypath.components.serving.replica import status

    def behind(name: str, alias: str) -> ModelVersion | None:
        found = alias_target(spec.tracking, name, alias) if alias else None
        same = found is None or (name, found[0]) == (spec.name, version)
        return None if same or found is None else ModelVersion(name=name, version=found[0], source=found[1])

    alias, _, percent = spec.canary.partition(":")

    def numbered(number: int) -> ModelVersion:
        return ModelVersion(name=spec.name, version=number, source=source_of(spec.tracking, spec.name, number))

    main = numbered(version)
    now = next((state.versions.get(spec.name, 0) for state in status.replica_statuses(spec.name)), 0)
    before = now or previous_champion(spec.tracking, spec.name, version)
    return ReplicaPlan(
        main=main,
        before=numbered(before) if before not in (0, version) else None,
        canary=behind(spec.name, alias),
        percent=float(percent or 0),
        shadow=behind(spec.name, spec.shadow),
        also=tuple(filter(None, (behind(name, CHAMPION) for name in spec.also))),
        # It differs each time, so that asking again for a version that could not be loaded tries again.
        asked=time.time(),
    )
