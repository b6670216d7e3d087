"""Roll a promoted version out to the endpoints of this machine: wait until every replica serves it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from raypath.components.core.errors import UserError
from raypath.deploy.local import services as local
from raypath.deploy.local.ray_connection import connection, quiet_serve

Serving = Literal["in service", "scaled to zero", "not in service"]


def roll_out(home: Path, name: str, version: int, before: int) -> Serving:
    """Let the endpoint of a model serve the version that became its champion; returns the endpoint's state.

    Where a replica rejects the version, the alias goes back to `before` (0: there was none). Raises PlatformError.
    """
    from raypath.components.serving.control import proxy, rollout

    if local.status(home)[0].state != "up":
        return "not in service"
    connection.connect(home)
    with quiet_serve():
        if not proxy.is_running():
            return "not in service"
        try:
            replicas = rollout.swap_version(name, version, before=before)
        except UserError:
            return "not in service"
    return "in service" if replicas else "scaled to zero"
