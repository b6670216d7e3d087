"""Rendezvous of a group, and its network interface. That two machines meet is shown by tests/chaos/test_network.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from raypath.components.training.runtime.process_group_backend import GLOO, interface_for, set_gloo_interface


def test_a_card_is_found_by_its_address() -> None:
    for name, each in psutil.net_if_addrs().items():
        assert all(interface_for(one.address) == name for one in each if one.family.name == "AF_INET")
    assert interface_for("127.0.0.1").startswith("lo")
    assert interface_for("203.0.113.9") == ""


def test_a_card_that_somebody_has_chosen_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GLOO, "eth7")
    set_gloo_interface()
    assert os.environ[GLOO] == "eth7"


def _open_ports() -> int:
    found = [each.laddr for each in psutil.Process().net_connections("inet") if each.status == psutil.CONN_LISTEN]
    return sum(address in ("0.0.0.0", "::") for address, _ in found)


def _group(config: dict[str, Any]) -> None:
    """Sum over the group; write the sum to a file, and the number of ports that this process opens to all addresses."""
    import ray.train
    import torch
    import torch.distributed as dist

    total = torch.tensor([float(dist.get_rank() + 1)])
    dist.all_reduce(total)
    path = Path(config["out"]) / f"{dist.get_rank()}.json"
    path.write_text(json.dumps([dist.get_world_size(), total.item(), _open_ports()]))
    ray.train.report({})


@pytest.mark.slow
def test_a_group_on_one_machine_opens_no_port_to_others(tmp_path: Path, ray_head: None) -> None:
    import sys

    import ray
    import ray.cloudpickle
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from raypath.components.training.runtime.process_group_backend import GroupConfig

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this module
    try:
        TorchTrainer(
            _group,
            train_loop_config={"out": str(tmp_path)},
            torch_config=GroupConfig(folder=str(tmp_path)),
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
            run_config=RunConfig(storage_path=str(tmp_path / "train")),
        ).fit()
        rays_own = ray.get(ray.remote(_open_ports).options(num_cpus=0).remote())
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found == [[2, 3.0, rays_own], [2, 3.0, rays_own]]
