"""Replica plans: the model versions that each replica loads, built from one snapshot of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raypath.components.registry.tags import CHAMPION
from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan
from raypath.components.tracking.tags import DECIDED, PREVIOUS_CHAMPION, REJECTED

if TYPE_CHECKING:
    from raypath.components.registry.snapshot import RegistrySnapshot
    from raypath.components.serving.spec import EndpointSpec

_PASSING = frozenset({DECIDED, REJECTED})
"""Tags that change while a version is in service, which is no new plan."""


def build_plan(
    registry: RegistrySnapshot, spec: EndpointSpec, version: int = 0, *, running: int = 0, requested_at: float = 0.0
) -> ReplicaPlan:
    """Build the plan of an endpoint's replicas; canary, shadow and additional models follow their aliases.

    An alias that no version has, or that the main version has, is left out.

    Args:
        version: The main version; 0 takes the champion. Without a champion the plan has version 0.
        running: The main version now in service, which is the fallback; 0 takes the previous champion.

    Raises DataError for an unknown version.
    """
    found = registry.version(spec.name, version) if version else registry.by_alias(spec.name, CHAMPION)
    if found is None:
        return ReplicaPlan(main=ModelVersion(name=spec.name))
    main = _model_version(found)
    before = running if running != main.version else 0
    before = before or int(found.tags.get(PREVIOUS_CHAMPION) or 0)
    alias, _, percent = (spec.serve.canary or "").partition(":")

    def other(name: str, alias: str | None) -> ModelVersion | None:
        found = registry.by_alias(name, alias) if alias else None
        same = found is None or (name, int(found.version)) == (main.name, main.version)
        return None if same else _model_version(found)

    return ReplicaPlan(
        main=main,
        fallback=None if before in (0, main.version) else _fallback(registry, spec.name, before),
        canary=other(spec.name, alias),
        canary_percent=float(percent or 0),
        shadow=other(spec.name, spec.serve.shadow),
        extra_models=tuple(filter(None, (other(name, CHAMPION) for name in spec.serve.extra_models))),
        requested_at=requested_at,
    )


def _model_version(found: Any) -> ModelVersion:
    tags = {name: text for name, text in found.tags.items() if name.startswith("raypath.") and name not in _PASSING}
    return ModelVersion(name=found.name, version=int(found.version), source=str(found.source), tags=tags)


def _fallback(registry: RegistrySnapshot, name: str, version: int) -> ModelVersion | None:
    found = registry.find(name, version)  # it may have been deleted
    return None if found is None else _model_version(found)
