"""Whether a Kubernetes cluster has room for pods: looked at before they are made, and told while one finds none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from raypath.components.core.errors import PlatformError, UserError
from raypath.deploy.kubernetes import kubectl

_UNITS = {
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
_KINDS = {"cpu": "CPUs", "memory": "GiB of memory", "nvidia.com/gpu": "GPUs"}


def check_nodes(pods: Iterable[Mapping[str, Any]], *where: str) -> None:
    """Raise UserError for a pod that is larger than every node, empty or not.

    Who may not see nodes is asked for nothing. where: what kubectl has to be told.
    """
    try:
        said = kubectl.kubectl("get", "nodes", "-o", "json", *where).stdout
    except PlatformError:
        return
    nodes = [_amounts(node["status"].get("allocatable", {})) for node in json.loads(said or "{}").get("items", [])]
    for pod in pods:
        wanted = _amounts(pod["spec"]["containers"][0]["resources"]["requests"])
        if nodes and not any(all(node[kind] >= wanted[kind] for kind in _KINDS) for node in nodes):
            largest = {kind: max(node[kind] for node in nodes) for kind in _KINDS}
            what = f"no node has {_told(wanted)}, as a pod of the job needs; the most that one has is {_told(largest)}"
            fix = "lower kuberay.cpus, .memory, .gpus or .head_*; kuberay.autoscaler=true where nodes come on demand"
            raise UserError(what, fix=fix)


def pod_problems(cluster: str, *where: str) -> list[str]:
    """Why pods of a Ray cluster do not start: no room for them, or no image. Empty where nothing is wrong or known."""
    try:
        said = kubectl.kubectl("get", "pods", "-l", f"ray.io/cluster={cluster}", "-o", "json", *where).stdout
    except PlatformError:
        return []
    found = [_pod_problem(pod) for pod in json.loads(said or "{}").get("items", [])]
    return list(dict.fromkeys(each for each in found if each))


def _pod_problem(pod: Mapping[str, Any]) -> str:
    status = pod.get("status", {})
    for each in status.get("conditions", []):
        if each.get("reason") == "Unschedulable":
            return f"a pod finds no node: {each.get('message', '')}"[:300]
    for each in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        waiting = each.get("state", {}).get("waiting", {})
        if waiting.get("reason", "PodInitializing") not in ("PodInitializing", "ContainerCreating"):
            return f"a pod does not start: {waiting.get('message') or waiting['reason']}"[:300]
    return ""


def _amounts(resources: Mapping[str, Any]) -> dict[str, float]:
    return {kind: _amount(str(resources.get(kind, "0"))) for kind in _KINDS}


def _amount(quantity: str) -> float:
    """A quantity as Kubernetes writes it: 2, 500m, 8Gi."""
    digits = quantity.rstrip("mkKMGTi")
    return float(digits) * _UNITS.get(quantity.removeprefix(digits), 1.0)


def _told(amounts: Mapping[str, float]) -> str:
    shown = {**amounts, "memory": amounts["memory"] / 2**30}
    parts = [f"{shown[kind]:.3g} {name}" for kind, name in _KINDS.items() if shown[kind]]
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
