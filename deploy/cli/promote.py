"""Promotion from the command line: wait until every replica serves the version."""

from __future__ import annotations

import logging
from pathlib import Path

from raypath.components.core.errors import UserError
from raypath.deploy.local import services as local
from raypath.deploy.local.ray_connection import connection


def follow(home: Path, name: str, version: int, before: int) -> str:
    """Roll out the version that an alias was moved to; returns a suffix for the message about the move.

    When a replica rejects the version, the alias is moved back to `before` (0: none) and PlatformError is raised.
    """
    from raypath.components.serving.control import proxy, rollout

    if local.status(home)[0].state != "up":
        return "; nothing serves it now"
    connection.connect(home)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if not proxy.is_running():
        return "; nothing serves it now"
    try:
        awake = rollout.swap_version(name, version, before=before)
    except UserError:
        return "; nothing serves it now"
    return " and in service" if awake else "; its endpoint sleeps, and the next request has that version"
