"""Owner of a connection on the loopback interface.

Browsers send the cookies of 127.0.0.1 to every port of it, so to servers of other users as well, and a link that is
opened from a terminal is visible in the list of processes. Both are of no use to another user of the machine where the
server looks up whose socket a request comes from.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = "0A"


def is_own(client: tuple[str, int], server: tuple[str, int]) -> bool:
    """Return True for a connection that this user or root has opened, and where the system does not tell (macOS)."""
    wanted = (_address(*client), _address(*server))
    known = False
    for table in _TABLES:
        with contextlib.suppress(OSError), table.open() as lines:
            next(lines, "")
            known = True
            for line in lines:
                local, remote, uid, inode = (line.split()[n] for n in (1, 2, 7, 9))
                # A socket that was closed has no inode, and the owner 0.
                if (local.upper()[-13:], remote.upper()[-13:]) == wanted and inode != "0":
                    return int(uid) in (0, os.getuid())
    return not known


def is_ours(port: int) -> bool:
    """Return False if another user listens on a port of the loopback interface: of a server that has ended, perhaps.

    True without a listener, and where the system does not tell (macOS).
    """
    for table in _TABLES:
        with contextlib.suppress(OSError), table.open() as lines:
            next(lines, "")
            for line in lines:
                local, state, uid = (line.split()[n] for n in (1, 3, 7))
                if state != _LISTENS:
                    break  # the kernel prints listeners first, then thousands of connections that have ended
                if int(local.rpartition(":")[2], 16) == port and int(uid) not in (0, os.getuid()):
                    return False
    return True


def _address(host: str, port: int) -> str:
    """Return an IPv4 address as the kernel prints it; in its table for IPv6 the same digits follow a prefix."""
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
