"""Which network interface the processes of a group exchange over: the one with the address by which Ray knows the node.

gloo, left to itself, takes the address that the machine's own name leads to. On Debian and its kin that is loopback,
and two machines then never meet. On a laptop it may be the network's, where loopback is all that one machine needs.
"""

from __future__ import annotations

import os
from typing import Any

import psutil
from ray.train.torch import TorchConfig

GLOO = "GLOO_SOCKET_IFNAME"
"""Names in the environment the interface that gloo takes; what stands there already is left."""


def interface_for(address: str) -> str:
    """The name of this machine's interface with that address; "" where none has it."""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, each in interfaces if any(one.address == address for one in each)), "")


def set_gloo_interface() -> None:
    """Tell gloo, in this process of Ray, its interface."""
    import ray.util

    if GLOO not in os.environ and (interface := interface_for(ray.util.get_node_ip_address())):
        os.environ[GLOO] = interface


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray Train's own, which here chooses the interface first."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(set_gloo_interface)
        super().on_start(worker_group, backend_config)


class InterfaceTorchConfig(TorchConfig):  # type: ignore[misc]
    """How Ray Train sets up torch, and the interface before that."""

    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend
