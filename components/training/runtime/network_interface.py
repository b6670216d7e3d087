"""Select the network interface for gloo: the one with the address by which Ray knows the node.

By default gloo takes the address that the host name resolves to. On Debian and derivatives that is loopback, so that
two machines never connect; on a laptop it may be the external address, where loopback would do.
"""

from __future__ import annotations

import os
from typing import Any

import psutil
from ray.train.torch import TorchConfig

GLOO = "GLOO_SOCKET_IFNAME"
"""Environment variable with gloo's network interface; a value that is already set is kept."""


def interface_for(address: str) -> str:
    """Return the name of this machine's interface with an address, or an empty string."""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, each in interfaces if any(one.address == address for one in each)), "")


def set_gloo_interface() -> None:
    """Set gloo's network interface in this Ray process."""
    import ray.util

    if GLOO not in os.environ and (interface := interface_for(ray.util.get_node_ip_address())):
        os.environ[GLOO] = interface


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray Train's torch backend, with the network interface set first."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(set_gloo_interface)
        super().on_start(worker_group, backend_config)


class InterfaceTorchConfig(TorchConfig):  # type: ignore[misc]
    """Ray Train's torch configuration, with the network interface set first."""

    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend
