"""Promotion from the command line: wait until every replica serves the version."""

from __future__ import annotations

import logging
from pathlib import Path

from raypath.components.core.errors import UserError
from raypath.deploy.local import services as local
from raypath.deploy.local.ray_connection import connection


def follow(home: Path, name: str, version: int, before: int) -> str:
    """Let the endpoint of a model follow a moved alias; returns what to add to the line that tells of the move.

    A version that a replica refuses loses the alias to the one `before` it (0: there was none). Raises PlatformError.
    """
    from raypath.components.serving.control import proxy, rollout

    if local.status(home)[0].state != "up":
        return "; nothing serves it now"
    connection.connect(home)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if not proxy.running():
        return "; nothing serves it now"
    try:
        awake = rollout.swap(name, version, before=before)
    except UserError:
        return "; nothing serves it now"
    return " and in service" if awake else "; its endpoint sleeps, and the next request has that version"
