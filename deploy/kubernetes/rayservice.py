"""The RayService of a workflow's model, made from k8s/base/rayservice.yaml and the settings `-s serve.KEY=...`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from raypath.components.models import bf16
from raypath.deploy.kubernetes import language_service
from raypath.deploy.kubernetes import manifests as kube
from raypath.deploy.launchers import RunRequest

if TYPE_CHECKING:
    from raypath.deploy.kubernetes.params import KubeRayParams


def served_model(request: RunRequest) -> tuple[str, Any] | None:
    """The registered model that the workflow serves, and its ServeParams; None for a workflow that serves nothing."""
    from raypath.components.register import RegisterParams
    from raypath.components.serving.params import ServeParams
    from raypath.components.training.params import FinetuneParams

    given = [argument for node in request.graph.nodes for argument in node.arguments]
    serve = next((each for each in given if isinstance(each, ServeParams)), None)
    registry = next((each for each in given if isinstance(each, RegisterParams)), None)
    if serve is None or registry is None:
        return None
    # The workflow's own task, which the endpoint may load from the registry.
    own = [each.task for each in given if isinstance(each, FinetuneParams) and ":" in each.task]
    return registry.name, serve.model_copy(update={"tasks": tuple(dict.fromkeys([*own, *serve.tasks]))})


def endpoint_manifests(request: RunRequest, params: KubeRayParams) -> list[dict[str, Any]]:
    """Return what the endpoint of the workflow's model consists of, the RayService last; [] for a workflow that serves
    none."""
    service = rayservice_manifest(request, params)
    if service is None:
        return []
    cached = params.model_cache is not None and language_service.serves_language_model(request)
    claim = [language_service.cache_claim(service["metadata"]["name"], params)] if cached else []
    return [*claim, service]


def rayservice_manifest(request: RunRequest, params: KubeRayParams) -> dict[str, Any] | None:
    """The RayService of the workflow's model, sized by its ServeParams; None for a workflow that serves none."""
    found = served_model(request)
    if found is None or not params.endpoint:
        return None
    name, serve = found
    manifest = kube.template(kube.BASE / "rayservice.yaml")
    manifest["metadata"] = {"name": service_name(name), "namespace": params.namespace}
    # Replicas that reserve no CPUs, as on a laptop, would never make the autoscaler add a node.
    cpus, most = serve.cpus or 1.0, max(serve.max_replicas, serve.replicas)
    serve = serve.model_copy(update={"cpus": cpus, "threads": serve.threads or math.ceil(cpus)})
    # Replicas that share a GPU run on the same node.
    each = max(1, int(1 / serve.gpus)) if serve.gpus else 1
    manifest["spec"]["serveConfigV2"] = _serve_config(manifest["spec"]["serveConfigV2"], name, serve)
    cluster = manifest["spec"]["rayClusterConfig"]
    head, group = kube.own_templates(cluster, "replicas")
    kube.set_resources(group["template"], str(math.ceil(cpus * each)), params.serve_memory, math.ceil(serve.gpus))
    fewest, most = math.ceil(serve.replicas / each), math.ceil(most / each)
    group.update(replicas=max(fewest, 1), minReplicas=fewest, maxReplicas=most)
    # Proxies run beside replicas and on the head. Scaled to zero, only the head can take the request that starts one.
    manifest["spec"]["excludeHeadPodFromServeSvc"] = serve.replicas > 0
    for template in (head["template"], group["template"]):
        kube.set_environment(template, {"MLFLOW_TRACKING_URI": params.tracking, **bf16.passed_environment()})
    if language_service.serves_language_model(request):
        language_service.fit_language_model(manifest, serve, params)
    kube.set_image(manifest, params.image, params.loaded)
    return manifest


def service_name(model: str) -> str:
    """The RayService's name. Raises UserError for one that KubeRay rejects."""
    return kube.checked_name(model.replace("_", "-").lower(), 47, "registry.name")


def _serve_config(text: str, name: str, serve: Any) -> str:
    import yaml

    from raypath.deploy.kubernetes.serve_app import arguments

    config = yaml.safe_load(text)
    config["http_options"]["request_timeout_s"] = serve.request_timeout + 5.0
    [application] = config["applications"]
    application["name"], application["route_prefix"] = name, serve.route or "/"
    application["args"] = arguments(name, serve.model_dump(mode="json"))
    return yaml.safe_dump(config, sort_keys=False)
