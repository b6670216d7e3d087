"""Tenants: customers that share a home, and the models of each.

A model belongs to one tenant, or to the home. What is kept by model, such as engines, prefix caches, metrics and logged
predictions, is therefore kept by tenant.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import AwareDatetime, BaseModel, ConfigDict

from raypath.components.core.errors import ParamsError
from raypath.components.serving.metering.holder import Key, Model, TenantName


class Tenant(BaseModel):
    """A tenant and the models that belong to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: TenantName
    models: tuple[Model, ...] = ()
    created: AwareDatetime


class Tenancy:
    """Owners of models."""

    def __init__(self, tenants: Iterable[Tenant] = ()) -> None:
        self._owners = {model: tenant.name for tenant in tenants for model in tenant.models}

    def owner(self, model: str) -> str | None:
        """Return the tenant of a model; None for one of the home."""
        return self._owners.get(model)

    def sees(self, key: Key | None, model: str) -> bool:
        """Return True if a model exists for the holder of a key. key: None for a sender without one."""
        if key is not None and key.is_home_admin:
            return True
        return self._owners.get(model) == (key.tenant if key is not None else None)


def with_tenant(tenants: Iterable[Tenant], made: Tenant) -> list[Tenant]:
    """Return the tenants with a new one, or with other models of one. Raises ParamsError for a model of another."""
    others = [tenant for tenant in tenants if tenant.name != made.name]
    owners = Tenancy(others)
    for model in made.models:
        if owner := owners.owner(model):
            fix = f"first leave it out in `raypath keys tenant {owner} --models ...`"
            raise ParamsError(f"model {model} belongs to tenant {owner}", fix=fix)
    return sorted([*others, made], key=lambda tenant: tenant.name)
