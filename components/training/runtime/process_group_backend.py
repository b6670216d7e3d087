"""Rendezvous of a group of training processes: a private file on one machine, PyTorch's TCP store on several.

The TCP store listens on all addresses and asks for no login, which a group on one machine does not need. Gloo uses the
network interface with the address by which Ray knows the node. By default it takes the address that the host name
resolves to: on Debian and derivatives that is loopback, so that two machines never connect; on a laptop it may be the
external address, where loopback would do.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

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
        if len(set(worker_group.execute(_node))) > 1:
            super().on_start(worker_group, backend_config)
            return
        file = Path(backend_config.folder) / f"group-{uuid.uuid4().hex}"
        backend = backend_config.backend or ("nccl" if worker_group.get_resources_per_worker().get("GPU") else "gloo")
        worker_group.execute(_set_torch_distributed_env_vars)
        common = {"backend": backend, "init_method": f"file://{file}", "timeout_s": backend_config.timeout_s}
        size = len(worker_group)
        ready = [
            worker_group.execute_single_async(
                rank, _setup_torch_process_group, world_rank=rank, world_size=size, **common
            )
            for rank in range(size)
        ]
        ray.get(ready)


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


@dataclass
class GroupConfig(TorchConfig):  # type: ignore[misc]
    """Ray Train's torch configuration. folder: private folder of the step, for the rendezvous on one machine."""

    folder: str = ""

    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend
