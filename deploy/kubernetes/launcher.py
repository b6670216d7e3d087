"""Launcher for Kubernetes with KubeRay: a RayJob that runs the workflow's driver, and a RayService for its model.

Both are made from the manifests in k8s/base, which hold the common parts: security, probes, tokens. The rest is set
with `-s kuberay.KEY=...`, and for serving with the workflow's own `-s serve.KEY=...`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypath.components.core.errors import UserError
from raypath.components.data.streaming import shard_cache
from raypath.components.models import bf16
from raypath.deploy.execution.cache_key import check_steps
from raypath.deploy.execution.run_history import Run
from raypath.deploy.kubernetes import kubectl
from raypath.deploy.kubernetes import manifests as kube
from raypath.deploy.kubernetes.capacity import check_nodes
from raypath.deploy.kubernetes.params import KubeRayParams
from raypath.deploy.kubernetes.rayjobs import RayJobClient, client_for
from raypath.deploy.kubernetes.rayservice import endpoint_manifests, served_model, service_name
from raypath.deploy.launchers import RunRequest
from raypath.deploy.remote.follow import attach_if_running, follow, new_run, report
from raypath.deploy.remote.package import check_visible_to_pods

PARAMS = KubeRayParams


def render(request: RunRequest, params: KubeRayParams) -> str:
    """Render the manifests. Raises UserError for names, images and resources that a cluster would reject."""
    check_visible_to_pods(request.graph, "/store")
    return kube.text([*endpoint_manifests(request, params), rayjob_manifest(request, params)])


def run(request: RunRequest, params: KubeRayParams) -> None:
    """Apply the manifests with kubectl, or attach to the running job, and follow it to its end.

    Raises UserError, PlatformError, and the error that the run ends with.
    """
    check_visible_to_pods(request.graph, "/store")
    check_steps(request.graph, request.fresh)
    # Rendering checks the settings, before the cluster is contacted.
    endpoint, manifest = endpoint_manifests(request, params), rayjob_manifest(request, params, "RUN")
    kubectl.check("-n", params.namespace)
    jobs = client_for(params.namespace)
    if attach_if_running(request, jobs, params.reconnect_timeout):
        return
    if not params.autoscaler:
        cluster = manifest["spec"]["rayClusterSpec"]
        check_nodes(each["template"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))
    for each in endpoint:
        kubectl.apply(each)
    run = new_run(request, jobs.address)
    run.job_id = kubectl.create(rayjob_manifest(request, params, run.id))
    run.save(request.home)
    report(f"{run.job_id} submitted; see it with `kubectl -n {params.namespace} get rayjob {run.job_id}`")
    follow(request.home, run, jobs, params.reconnect_timeout)


def attach(home: Path, run: Run) -> None:
    """Follow a run that was submitted from here."""
    jobs = RayJobClient(run.cluster)
    kubectl.check(*jobs.where)
    follow(home, run, jobs, KubeRayParams().reconnect_timeout)


def job_name(request: RunRequest, params: KubeRayParams, longest: int = 47) -> str:
    """The job's name. Raises UserError for one that KubeRay rejects."""
    name = params.name or request.graph.workflow.replace("_", "-").lower()
    return kube.checked_name(name, longest, "kuberay.name")


def rayjob_manifest(request: RunRequest, params: KubeRayParams, run: str = "") -> dict[str, Any]:
    """The RayJob. run: id of a run that a client follows; `kubectl create` then generates the name."""
    check(request, params)
    manifest = kube.template(kube.BASE / "rayjob.yaml")
    # Kubernetes adds a hyphen and five characters to a generated name.
    name = job_name(request, params, 41 if run else 47)
    manifest["metadata"] = {"namespace": params.namespace, **({"generateName": f"{name}-"} if run else {"name": name})}
    spec = manifest["spec"]
    spec["entrypoint"] = request.driver_command(run)
    spec["activeDeadlineSeconds"] = int(params.deadline)
    spec["backoffLimit"] = params.retries
    spec["suspend"] = bool(params.queue)
    if params.queue:
        manifest["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": params.queue}
    cluster = spec["rayClusterSpec"]
    head, group = kube.own_templates(cluster, "workers")
    kube.set_resources(head["template"], str(params.head_cpus), params.head_memory)
    kube.set_resources(group["template"], str(params.cpus), params.memory, params.gpus)
    group.update(replicas=params.workers, minReplicas=params.workers, maxReplicas=params.workers)
    environment = {"MLFLOW_TRACKING_URI": params.tracking, "RAYPATH_STORE": params.store}
    environment |= bf16.passed_environment() | shard_cache.passed_environment()
    if not _local_storage_only(params):
        # All nodes mount this folder, so the workers of a step may run on any of them.
        environment["RAYPATH_HOME"] = params.store
    if found := served_model(request):
        environment["RAYPATH_ENDPOINT"] = f"http://{service_name(found[0])}-serve-svc:8000{found[1].route or ''}"
    for template in (head["template"], group["template"]):
        kube.set_environment(template, environment)
        if _local_storage_only(params):
            kube.remove_volume(template, "store")
    kube.set_image(manifest, params.image, params.loaded)
    return manifest


def check(request: RunRequest, params: KubeRayParams) -> None:
    """Raise UserError for settings that the nodes of this job cannot satisfy."""
    from raypath.components.training.params import TrainingParams

    if params.store.startswith("/") and not params.store.startswith("/store"):
        raise UserError(
            f"kuberay.store={params.store} is not on a mounted volume", fix="use /store/... or s3://BUCKET/PREFIX"
        )
    found = served_model(request)
    if params.endpoint and found and found[1].open:
        raise UserError("serve.open works on one machine only", fix="leave serve.open unset; clients send a key")
    given = [argument for node in request.graph.nodes for argument in node.arguments]
    for each in (each for each in given if isinstance(each, TrainingParams)):
        _check_capacity(max(each.workers, each.max_workers), params)


def _check_capacity(workers: int, params: KubeRayParams) -> None:
    what, each = ("GPUs", params.gpus) if params.gpus else ("CPUs", params.cpus)
    if workers > each * params.workers:
        message = f"{workers} training workers, but the nodes have {each * params.workers} {what}"
        raise UserError(message, fix=f"raise kuberay.workers, or kuberay.{what.lower()}")


def _local_storage_only(params: KubeRayParams) -> bool:
    """True where nodes share object storage but no folder."""
    return "://" in params.store
