"""Missing capacity is reported before submission, and while a job waits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raypath.components import UserError
from raypath.deploy.kubernetes import capacity, quantities
from tests.deploy.kubernetes import kubectl


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    kubectl.put(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def _nodes(folder: Path, *sizes: dict[str, str]) -> None:
    found = [{"status": {"allocatable": {"pods": "110", **size}}} for size in sizes]
    (folder / "nodes").write_text(json.dumps({"items": found}))


def _pod(cpu: str, memory: str, gpus: str = "0") -> dict[str, Any]:
    sizes = {"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpus}
    sidecar = {"cpu": "0", "memory": "0"}
    return {"spec": {"containers": [{"resources": {"requests": each}} for each in (sizes, sidecar)]}}


SMALL, LARGE = {"cpu": "1930m", "memory": "8048128Ki"}, {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"}


@pytest.mark.parametrize(
    ("pod", "lacks"),
    [
        (_pod("2", "8Gi"), ""),
        (_pod("8", "64Gi", "1"), ""),
        (_pod("9", "1Gi"), "no node has 9 CPUs and 1 GiB of memory.*the largest has 8 CPUs, 64 GiB of memory"),
        (_pod("1", "65Gi"), "65 GiB"),
        (_pod("1", "1Gi", "2"), "2 GPUs"),
    ],
)  # fmt: skip
def test_a_pod_larger_than_every_node_is_an_error(there: Path, pod: dict[str, Any], lacks: str) -> None:
    _nodes(there, SMALL, LARGE)
    if not lacks:
        capacity.check_nodes([pod])
        return
    with pytest.raises(UserError, match=lacks) as raised:
        capacity.check_nodes([_pod("1", "1Gi"), pod])
    assert "kuberay.autoscaler=true" in raised.value.fix


def test_no_two_nodes_make_a_large_one(there: Path) -> None:
    _nodes(there, {"cpu": "16", "memory": "8Gi"}, {"cpu": "2", "memory": "64Gi"})
    with pytest.raises(UserError, match="no node has"):
        capacity.check_nodes([_pod("4", "16Gi")])


def test_who_sees_no_nodes_is_asked_for_nothing(there: Path) -> None:
    capacity.check_nodes([_pod("999", "999Gi")])
    (there / "kubectl").write_text("#!/bin/sh\nexit 1\n")
    capacity.check_nodes([_pod("999", "999Gi")])
    assert capacity.pod_problems("x") == []


def test_why_pods_do_not_start_is_told_once(there: Path) -> None:
    full = {"conditions": [{"reason": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient cpu."}]}
    absent = {"reason": "ErrImageNeverPull", "message": "image x is not present"}
    states = [
        full,
        full,
        {"containerStatuses": [{"state": {"waiting": absent}}]},
        {"initContainerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]},
        {"initContainerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
        {"containerStatuses": [{"state": {"running": {}}}]},
        {},
    ]
    (there / "pods").write_text(json.dumps({"items": [{"status": status} for status in states]}))
    assert capacity.pod_problems("x") == [
        "a pod cannot be scheduled: 0/2 nodes are available: 2 Insufficient cpu.",
        "a pod does not start: image x is not present",
        "a pod does not start: CrashLoopBackOff",
    ]


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [("2", 2.0), ("500m", 0.5), ("1.5Gi", 1.5 * 2**30), ("2Ti", 2.0**41), ("3T", 3e12), ("8048128Ki", 8048128 * 1024)],
)
def test_quantities_are_read_as_kubernetes_means_them(quantity: str, amount: float) -> None:
    assert quantities.parse(quantity) == amount
