"""Parts of a RayService that serves a language model: cache volume, shared memory, times that fit long responses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from raypath.deploy.kubernetes import manifests as kube
from raypath.deploy.launchers import RunRequest

if TYPE_CHECKING:
    from raypath.components.serving.params import ServeParams
    from raypath.deploy.kubernetes.params import KubeRayParams

CACHE = "/models"
"""Mount of the cache volume."""
SHARED_MEMORY = "4Gi"
"""Size of /dev/shm, in which the GPUs of a replica exchange tensors; it counts as memory of the pod."""
OBJECT_STORE = str(256 * 2**20)
"""Bytes of Ray's object store, which is in /dev/shm too; responses do not pass through it."""
STOP_SECONDS = 30
"""Seconds of a pod's end beyond its longest response."""


def serves_language_model(request: RunRequest) -> bool:
    """Return True if the workflow's task generates text."""
    from raypath.components.tasks.catalog import task_type
    from raypath.components.training.params import FinetuneParams

    given = [argument for node in request.graph.nodes for argument in node.arguments]
    return any(task_type(each.task).generates_text for each in given if isinstance(each, FinetuneParams))


def cache_claim(service: str, params: KubeRayParams) -> dict[str, Any]:
    """Return the claim of the volume that keeps the models of an endpoint: pods that start later read them there."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": _claim(service), "namespace": params.namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": params.model_cache}}},
    }


def fit_language_model(manifest: dict[str, Any], serve: ServeParams, params: KubeRayParams) -> None:
    """Adapt the manifest of a RayService, and check the settings. Raises ParamsError for some that disagree.

    The startup and liveness probes ask Ray alone, so that no pod is killed while a model loads, which may take long.
    The readiness probe asks the pod's proxy, which is ready once a replica runs: it has loaded its version by then,
    answered a request and the golden prompts.
    """
    from raypath.components.serving.params import check_language

    check_language(serve)
    name = manifest["metadata"]["name"]
    group = kube.by_name(manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"], "replicas", "groupName")
    group["rayStartParams"] = {**group["rayStartParams"], "object-store-memory": OBJECT_STORE}
    pod = group["template"]
    pod["spec"]["terminationGracePeriodSeconds"] = math.ceil(serve.request_timeout) + STOP_SECONDS
    memory = {"emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}
    kube.add_volume(pod, "shared-memory", "/dev/shm", memory)  # nosec B108 - a volume of the container
    head = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    if params.model_cache is None:
        return
    # The head reads the champion's metadata; kernels that vLLM compiles are kept beside the models.
    for each in (head, pod):
        kube.add_volume(each, "models", CACHE, {"persistentVolumeClaim": {"claimName": _claim(name)}})
        kube.container(each)["env"] += [
            {"name": "RAYPATH_CACHE", "value": f"{CACHE}/cache"},
            {"name": "VLLM_CACHE_ROOT", "value": f"{CACHE}/vllm"},
        ]


def _claim(service: str) -> str:
    return f"{service}-models"
