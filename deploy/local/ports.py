"""Ports of the local services, stable over restarts of a home.

They are in 20000-29799: Ray rejects 10002-19999, replicas of Ray Serve start at 30000, and Linux assigns ports from
32768 to outgoing connections. Each home starts its search at a position of its own, so that two homes do not take each
other's ports while one of them is down.
"""

from __future__ import annotations

import os
import socket
import zlib
from collections.abc import Mapping
from pathlib import Path

from raypath.components.core.errors import PortInUse, UserError
from raypath.deploy.local.haproxy import PORTS

RAY = ("ray", "dashboard", "metrics", "serve", *PORTS)
MLFLOW = ("mlflow",)
_NAMES = RAY + MLFLOW
_FIRST = 20_000
_BLOCKS = 9_800 // len(_NAMES)


def choose(home: Path, known: Mapping[str, int], name: str) -> int:
    """Return the configured port (RAYPATH_MLFLOW_PORT, RAYPATH_SERVE_PORT), else the previous one, else a free one."""
    variable = f"RAYPATH_{name.upper()}_PORT"
    if configured := os.environ.get(variable):
        return _configured(variable, configured)
    if (last := known.get(name, 0)) and is_free(last):
        return last
    return _free(home, name, set(known.values()))


def is_free(port: int) -> bool:
    """Return True when a server could listen on the port; connections in TIME_WAIT do not matter."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _configured(variable: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or not 1024 <= int(value) <= 65535:
        raise UserError(f"{variable}={value} is not a port", fix="give a number from 1024 to 65535")
    if not is_free(int(value)):
        fix = f"stop that program, or give {variable} another port, or unset it to have a free one chosen"
        raise PortInUse(f"port {value} ({variable}) is in use by another program", fix=fix)
    return int(value)


def _free(home: Path, name: str, taken: set[int]) -> int:
    block = zlib.crc32(str(home).encode())
    for step in range(_BLOCKS):
        port = _FIRST + (block + step) % _BLOCKS * len(_NAMES) + _NAMES.index(name)
        if port not in taken and is_free(port):
            return port
    raise PortInUse("no port from 20000 to 29799 is free", fix="stop what listens there")
