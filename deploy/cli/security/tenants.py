"""Commands `keys tenant` and `keys tenants`."""

from __future__ import annotations

from pathlib import Path

from raypath.components.core.errors import ParamsError
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.deploy.cli.security.keys import ALL, folder, parse_models, print_table
from raypath.deploy.console.run_report import console
from raypath.deploy.store.audit.log import audited


def set_tenant(home: Path, name: str, models: str | None) -> None:
    """Make a tenant, or give it other models, and print that. models: None leaves those it has. Raises ParamsError."""
    store = KeyStore(folder(home))
    if models is None:
        named = next((each.models for each in store.tenants() if each.name == name), ())
    else:
        named = (parse_models(models) if models else ()) or ()
    if models == ALL:
        raise ParamsError("--models got all", fix="name the models that belong to the tenant")
    with audited(home, "tenant.set", name, {"models": list(named), "tenant": name}):
        made = store.set_tenant(name, named)
    what = f"the models {', '.join(made.models)}" if made.models else "no models"
    print(f"tenant {made.name} has {what}; running endpoints follow within a second or two")


def show_tenants(home: Path) -> None:
    """Print the tenants with their models, and how many keys of each are active."""
    from datetime import UTC, datetime

    store, now = KeyStore(folder(home)), datetime.now(UTC).timestamp()
    active = [key.tenant for key in store.list() if key.status(now) == "active"]
    lines = [(each.name, ",".join(each.models) or "-", str(active.count(each.name))) for each in store.tenants()]
    if not lines:
        console.print("no tenants yet; `raypath keys tenant NAME --models MODELS` makes one")
        return
    print_table(("tenant", "models", "keys"), lines)
