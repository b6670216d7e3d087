"""Capacity of a Kubernetes cluster: check pods against its nodes, and explain why pods do not start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from raypath.components.core.errors import PlatformError, UserError
from raypath.deploy.kubernetes import kubectl, quantities

_KINDS = {"cpu": "CPUs", "memory": "GiB of memory", "nvidia.com/gpu": "GPUs"}


def check_nodes(pods: Iterable[Mapping[str, Any]], *where: str) -> None:
    """Raise UserError for a pod that is larger than every node, empty or not.

    Without permission to list nodes nothing is checked. where: further arguments for kubectl.
    """
    try:
        output = kubectl.kubectl("get", "nodes", "-o", "json", *where).stdout
    except PlatformError:
        return
    nodes = [_amounts(node["status"].get("allocatable", {})) for node in json.loads(output or "{}").get("items", [])]
    for pod in pods:
        wanted = _requests(pod)
        if nodes and not any(all(node[kind] >= wanted[kind] for kind in _KINDS) for node in nodes):
            largest = {kind: max(node[kind] for node in nodes) for kind in _KINDS}
            what = (
                f"no node has {_describe(wanted)}, which a pod of the job needs; the largest has {_describe(largest)}"
            )
            fix = "lower kuberay.cpus, .memory, .gpus or .head_*; kuberay.autoscaler=true where nodes come on demand"
            raise UserError(what, fix=fix)


def pod_problems(cluster: str, *where: str) -> list[str]:
    """Reasons why pods of a Ray cluster do not start, such as missing capacity or a missing image."""
    try:
        output = kubectl.kubectl("get", "pods", "-l", f"ray.io/cluster={cluster}", "-o", "json", *where).stdout
    except PlatformError:
        return []
    found = [_pod_problem(pod) for pod in json.loads(output or "{}").get("items", [])]
    return list(dict.fromkeys(each for each in found if each))


def _pod_problem(pod: Mapping[str, Any]) -> str:
    status = pod.get("status", {})
    for each in status.get("conditions", []):
        if each.get("reason") == "Unschedulable":
            return f"a pod cannot be scheduled: {each.get('message', '')}"[:300]
    for each in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        waiting = each.get("state", {}).get("waiting", {})
        if waiting.get("reason", "PodInitializing") not in ("PodInitializing", "ContainerCreating"):
            return f"a pod does not start: {waiting.get('message') or waiting['reason']}"[:300]
    return ""


def _requests(pod: Mapping[str, Any]) -> dict[str, float]:
    """Requests of all containers of a pod."""
    each = [_amounts(container["resources"]["requests"]) for container in pod["spec"]["containers"]]
    return {kind: sum(amounts[kind] for amounts in each) for kind in _KINDS}


def _amounts(resources: Mapping[str, Any]) -> dict[str, float]:
    return {kind: quantities.parse(str(resources.get(kind, "0"))) for kind in _KINDS}


def _describe(amounts: Mapping[str, float]) -> str:
    shown = {**amounts, "memory": amounts["memory"] / 2**30}
    parts = [f"{shown[kind]:.3g} {name}" for kind, name in _KINDS.items() if shown[kind]]
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
