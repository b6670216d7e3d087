"""Manifests from the templates in k8s/base: load, edit and print them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import raypath
from raypath.components.core.errors import PlatformError, UserError

BASE = Path(raypath.__file__).parent / "k8s" / "base"
_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SCRATCH = {"requests": "8Gi", "limits": "24Gi"}
"""Ephemeral storage of a node."""


def template(path: Path) -> dict[str, Any]:
    """Load a manifest of k8s/base. Raises PlatformError where it cannot be read."""
    import yaml

    try:
        found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlatformError(f"cannot read {path}: {error.strerror}", fix="reinstall raypath") from None
    return found


def text(documents: Iterable[Mapping[str, Any]]) -> str:
    """Print the documents as YAML, without anchors."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def folded(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Plain.add_representer(str, folded)
    return "---\n".join(yaml.dump(each, Dumper=Plain, sort_keys=False, width=1000) for each in documents)


def checked_name(name: str, longest: int, setting: str) -> str:
    """Return the name. Raises UserError for one that KubeRay rejects: it derives longer names from it."""
    if len(name) > longest:
        raise UserError(f"{name} has {len(name)} characters; KubeRay allows {longest}", fix=f"set {setting}")
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is not a valid Kubernetes name: use a-z, 0-9 and -, a letter first", fix=f"set {setting}"
        )
    return name


def set_image(manifest: Any, image: str, loaded: bool, launcher: str = "kuberay") -> None:
    """Set the image of every container. Raises UserError for an image without a digest."""
    if not image:
        fix = f"-s {launcher}.image=REPOSITORY@sha256:DIGEST, built from deploy/image/Dockerfile"
        raise UserError("no image is set", fix=fix)
    if not loaded and not _DIGEST.fullmatch(image):
        fix = f"use REPOSITORY@sha256:DIGEST, or {launcher}.loaded=true for an image loaded onto the nodes by hand"
        raise UserError(f"image {image} is not pinned by digest", fix=fix)
    for each in _containers(manifest):
        each["image"] = image
        if loaded:
            each["imagePullPolicy"] = "Never"


def _containers(node: Any) -> Iterable[dict[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "containers":
                yield from value
            else:
                yield from _containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from _containers(value)


def by_name(items: Iterable[dict[str, Any]], name: str, key: str = "name") -> dict[str, Any]:
    """The item of a list in a manifest that has this name. Raises PlatformError for a manifest without it."""
    found = next((item for item in items if item.get(key) == name), None)
    if found is None:
        raise PlatformError(f"the manifest has no {key} {name}", fix="compare it with k8s/base of this version")
    return found


def container(pod: dict[str, Any], name: str = "ray") -> dict[str, Any]:
    """A container of a pod template."""
    return by_name(pod["spec"]["containers"], name)


def own_templates(cluster: dict[str, Any], group: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The head group and a worker group of a Ray cluster, each with a pod template of its own.

    In the YAML of k8s/base both templates share parts through anchors.
    """
    head, workers = cluster["headGroupSpec"], by_name(cluster["workerGroupSpecs"], group, "groupName")
    for each in (head, workers):
        each["template"] = copy.deepcopy(each["template"])
    return head, workers


def set_resources(pod: dict[str, Any], cpus: str, memory: str, gpus: int = 0) -> None:
    """Set CPUs, memory and GPUs of a pod's Ray container, requests and limits alike."""
    devices = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    container(pod)["resources"] = {
        kind: {"cpu": cpus, "memory": memory, "ephemeral-storage": disk, **devices} for kind, disk in SCRATCH.items()
    }
    if gpus:
        pod["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def set_environment(pod: dict[str, Any], values: Mapping[str, str]) -> None:
    """Set the environment variables of a pod's Ray container."""
    container(pod)["env"] = [{"name": name, "value": value} for name, value in values.items()]


def add_volume(pod: dict[str, Any], name: str, path: str, source: Mapping[str, Any]) -> None:
    """Mount a volume in a pod's Ray container."""
    pod["spec"]["volumes"] = [*pod["spec"]["volumes"], {"name": name, **source}]
    box = container(pod)
    box["volumeMounts"] = [*box["volumeMounts"], {"name": name, "mountPath": path}]


def remove_volume(pod: dict[str, Any], volume: str) -> None:
    """Remove a volume and its mounts from a pod."""
    spec = pod["spec"]
    spec["volumes"] = [each for each in spec["volumes"] if each["name"] != volume]
    for each in spec["containers"]:
        each["volumeMounts"] = [mount for mount in each["volumeMounts"] if mount["name"] != volume]
