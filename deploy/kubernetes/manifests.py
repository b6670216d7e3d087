"""Manifests from templates, and kubectl: what the launcher and the schedule share."""

from __future__ import annotations

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
"""Disk of a node, beside its volumes."""


def template(path: Path) -> dict[str, Any]:
    """A manifest of k8s/base. Raises PlatformError where the folder is not at hand."""
    import yaml

    try:
        found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlatformError(f"cannot read {path}: {error.strerror}", fix="run from a checkout, or the image") from None
    return found


def text(documents: Iterable[Mapping[str, Any]]) -> str:
    """The documents as YAML, without anchors."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def folded(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Plain.add_representer(str, folded)
    return "---\n".join(yaml.dump(each, Dumper=Plain, sort_keys=False, width=1000) for each in documents)


def named(name: str, longest: int, setting: str) -> str:
    """The name. Raises UserError for one that KubeRay would refuse: it makes longer names of it."""
    if len(name) > longest:
        raise UserError(f"{name} has {len(name)} characters, and KubeRay takes {longest}", fix=f"set {setting}")
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name in Kubernetes: a-z, 0-9 and -, a letter first", fix=f"set {setting}")
    return name


def image(manifest: Any, wanted: str, loaded: bool, launcher: str = "kuberay") -> None:
    """Put the image into every container of ours. Raises UserError for one that is not named by its digest."""
    if not wanted:
        raise UserError(
            "no image is set", fix=f"-s {launcher}.image=REPOSITORY@sha256:..., made by deploy/image/Dockerfile"
        )
    if not loaded and not _DIGEST.fullmatch(wanted):
        fix = f"give REPOSITORY@sha256:..., or {launcher}.loaded=true for one that was loaded onto the nodes by hand"
        raise UserError(f"image {wanted} has no digest: what runs could change unseen", fix=fix)
    for box in _containers(manifest):
        box["image"] = wanted
        if loaded:
            box["imagePullPolicy"] = "Never"


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


def size(pod: dict[str, Any], cpus: str, memory: str, gpus: int = 0) -> None:
    """CPUs, memory and GPUs of a pod's first container: what it asks for is what it may use."""
    devices = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    pod["spec"]["containers"][0]["resources"] = {
        kind: {"cpu": cpus, "memory": memory, "ephemeral-storage": disk, **devices} for kind, disk in SCRATCH.items()
    }
    if gpus:
        pod["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def environment(pod: dict[str, Any], values: Mapping[str, str]) -> None:
    """Variables of a pod's first container."""
    pod["spec"]["containers"][0]["env"] = [{"name": name, "value": value} for name, value in values.items()]


def without(pod: dict[str, Any], volume: str) -> None:
    """Take a volume and its mounts out of a pod."""
    spec = pod["spec"]
    spec["volumes"] = [each for each in spec["volumes"] if each["name"] != volume]
    for box in spec["containers"]:
        box["volumeMounts"] = [each for each in box["volumeMounts"] if each["name"] != volume]
