"""Network namespaces joined by a bridge: nodes with addresses of their own, whose cable can be pulled.

    this machine 198.18.N.1 --- bridge --- 198.18.N.2, in a namespace of its own
                                  +------- 198.18.N.3 ...

The addresses are those set aside for such tests (RFC 2544), so none of a real network is hidden. All have the name of
this machine, which leads them to loopback: what finds itself by it finds nobody.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Network:
    """The bridge `name`, and a namespace for each host that is asked for."""

    def __init__(self, name: str, part: int) -> None:
        self.name, self.part = name, part
        self.hosts: list[str] = []
        self.here = f"198.18.{part}.1"
        # Whether there can be namespaces is known before anything is left behind.
        _ip("netns", "add", name)
        _ip("netns", "del", name)
        _ip("link", "add", name, "type", "bridge")
        _ip("addr", "add", f"{self.here}/24", "dev", name)
        _ip("link", "set", name, "up")

    def host(self) -> tuple[str, list[str]]:
        """A further host: its address, and what stands before a command that is to run there."""
        number = len(self.hosts) + 2
        address, space = f"198.18.{self.part}.{number}", f"{self.name}-{number}"
        cable = self._cable(space)
        self.hosts.append(space)
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", self.name, "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        for card in ("lo", "eth0"):
            _ip("-n", space, "link", "set", card, "up")
        return address, self.inside(address)

    def inside(self, address: str) -> list[str]:
        """Prefix of a command that runs at this address."""
        return ["ip", "netns", "exec", self._space(address)]

    def pull(self, address: str) -> None:
        """Pull the cable of a host: it goes on, and hears nobody."""
        _ip("link", "set", self._cable(self._space(address)), "down")

    def remove(self) -> None:
        """All of it."""
        for space in self.hosts:
            _ip("link", "del", self._cable(space))
            _ip("netns", "del", space)
        _ip("link", "del", self.name)

    def _cable(self, space: str) -> str:
        """The name of its end at the bridge; 15 characters at most."""
        return space.replace("-", "")

    def _space(self, address: str) -> str:
        return self.hosts[int(address.rpartition(".")[2]) - 2]


@contextmanager
def network() -> Iterator[Network]:
    """A network of its own. Skips the test where this machine makes none."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip` (Debian's iproute2)")
    try:
        made = Network(f"rp{os.getpid()}", os.getpid() % 256)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        yield made
    finally:
        made.remove()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
