"""Run a workflow on Kubernetes: a RayJob, whose driver is `python -m raypath.deploy.ray_cluster.driver WORKFLOW`,
and its model's RayService.

Both are made from the manifests in k8s/base, which say what is the same for every one: security, probes, tokens. What
differs is set with `-s kuberay.KEY=...`; how the model is served, with the workflow's own `-s serve.KEY=...`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from raypath.components.core.errors import UserError
from raypath.components.core.params import NonNegative, Params, Positive, Seconds
from raypath.deploy.execution.cache_key import check_steps
from raypath.deploy.execution.run_history import Run
from raypath.deploy.kubernetes import manifests as kube
from raypath.deploy.kubernetes.capacity import check_nodes
from raypath.deploy.kubernetes.rayjobs import RayJobs, here
from raypath.deploy.kubernetes.rayservice import served, service_name, service_of
from raypath.deploy.launchers import Job
from raypath.deploy.remote.follow import begun, follow, say, taken_up
from raypath.deploy.remote.package import check_in_reach

_LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti)$")]


class LauncherParams(Params):
    """What a workflow gets of a cluster."""

    image: str = ""
    """REPOSITORY@sha256:DIGEST of what deploy/image/Dockerfile makes."""
    loaded: bool = False
    """The image was loaded onto the nodes by hand (`kind load`): it is never pulled, and needs no digest."""
    name: Annotated[str, Field(pattern=_LABEL)] | None = None
    """Of the RayJob; none takes the workflow's, with - for _."""
    namespace: Annotated[str, Field(pattern=_LABEL)] = "raypath"
    """Where k8s/base was applied."""
    workers: Positive = 1
    """Nodes of the job's Ray cluster, beside its head."""
    cpus: Positive = 2
    """CPUs of a node."""
    memory: Quantity = "8Gi"
    """Memory of a node."""
    gpus: NonNegative = 0
    """GPUs of a node."""
    head_cpus: Positive = 2
    """CPUs of the head, which runs the driver and none of the steps."""
    head_memory: Quantity = "8Gi"
    """Memory of the head."""
    serve_memory: Quantity = "4Gi"
    """Memory of a node of the endpoint; it has as many CPUs and GPUs as one replica reserves."""
    store: str = "/store"
    """s3://BUCKET/PREFIX, or a path below the claim raypath-store, which is mounted at /store."""
    tracking: str = "http://mlflow:5000"
    """Address of the MLflow server."""
    endpoint: bool = True
    """Render the RayService of the model beside the job, where the workflow serves one."""
    queue: str = ""
    """Kueue's LocalQueue in which the job waits for room."""
    retries: NonNegative = 0
    """New clusters for a job that failed. What is committed is not run again, but a mistake of its user's would be."""
    autoscaler: bool = False
    """Nodes come on demand: what is larger than every node of now is no mistake."""
    deadline: Seconds = 86_400.0
    """Seconds until the job is given up."""
    patience: Seconds = 600.0
    """How long a lost connection is tried again."""
    raycronjob: bool = False
    """`raypath schedule` makes a RayCronJob, which KubeRay takes with its feature gate RayCronJob, not a CronJob."""


def render(job: Job, params: LauncherParams) -> str:
    """The manifests. Raises UserError for names, images and resources that a cluster would refuse."""
    check_in_reach(job.graph, "/store")
    documents = [service] if (service := service_of(job, params)) else []
    return kube.text([*documents, job_of(job, params)])


def run(job: Job, params: LauncherParams) -> None:
    """Apply the manifests with kubectl, or attach where the job runs already, and follow it to its end.

    Raises UserError, PlatformError, and what the run ends with.
    """
    check_in_reach(job.graph, "/store")
    check_steps(job.graph, job.fresh)
    # What a cluster would refuse is told before one is asked.
    service, manifest = service_of(job, params), job_of(job, params, "RUN")
    kube.check("-n", params.namespace)
    jobs = here(params.namespace)
    if taken_up(job, jobs, params.patience):
        return
    if not params.autoscaler:
        cluster = manifest["spec"]["rayClusterSpec"]
        check_nodes(each["template"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))
    if service:
        kube.apply(service)
    run = begun(job, jobs.address)
    run.job = kube.create(job_of(job, params, run.id))
    run.save(job.home)
    say(f"{run.job} submitted; see it with `kubectl -n {params.namespace} get rayjob {run.job}`")
    follow(job.home, run, jobs, params.patience)


def attach(home: Path, run: Run) -> None:
    """Follow a run that was submitted from here."""
    jobs = RayJobs(run.where)
    kube.check(*jobs.where)
    follow(home, run, jobs, LauncherParams().patience)


def name_of(job: Job, params: LauncherParams, longest: int = 47) -> str:
    """The job's name. Raises UserError for one that KubeRay would refuse."""
    name = params.name or job.graph.workflow.replace("_", "-").lower()
    return kube.named(name, longest, "kuberay.name")


def job_of(job: Job, params: LauncherParams, run: str = "") -> dict[str, Any]:
    """The RayJob. run: the id of a run that is followed, whose name is made new, as `kubectl create` wants it."""
    check(job, params)
    manifest = kube.template(kube.BASE / "rayjob.yaml")
    # Room for the five characters and the hyphen that Kubernetes adds to a generated name.
    name = name_of(job, params, 41 if run else 47)
    manifest["metadata"] = {"namespace": params.namespace, **({"generateName": f"{name}-"} if run else {"name": name})}
    spec = manifest["spec"]
    spec["entrypoint"] = job.driver(run)
    spec["activeDeadlineSeconds"] = int(params.deadline)
    spec["backoffLimit"] = params.retries
    spec["suspend"] = bool(params.queue)
    if params.queue:
        manifest["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": params.queue}
    cluster = spec["rayClusterSpec"]
    head, group = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    # The base's entry is one mapping for all: each pod gets its own.
    head["template"], group["template"] = copy.deepcopy(head["template"]), copy.deepcopy(group["template"])
    kube.size(head["template"], str(params.head_cpus), params.head_memory)
    kube.size(group["template"], str(params.cpus), params.memory, params.gpus)
    group.update(replicas=params.workers, minReplicas=params.workers, maxReplicas=params.workers)
    environment = {"MLFLOW_TRACKING_URI": params.tracking, "RAYPATH_STORE": params.store}
    if not _apart(params):
        # A folder that all nodes mount: what a step begins on one node, its workers see on the others.
        environment["RAYPATH_HOME"] = params.store
    if found := served(job):
        environment["RAYPATH_ENDPOINT"] = f"http://{service_name(found[0])}-serve-svc:8000{found[1].route or ''}"
    for template in (head["template"], group["template"]):
        kube.environment(template, environment)
        if _apart(params):
            kube.without(template, "store")
    kube.image(manifest, params.image, params.loaded)
    return manifest


def check(job: Job, params: LauncherParams) -> None:
    """Raise UserError for what no node of this job could give, before anything is paid for."""
    from raypath.components.training.params import TrainingParams

    if params.store.startswith("/") and not params.store.startswith("/store"):
        raise UserError(f"kuberay.store={params.store} is on no volume", fix="use /store/... or s3://BUCKET/PREFIX")
    found = served(job)
    if params.endpoint and found and found[1].open:
        raise UserError("serve.open answers on one machine alone", fix="leave serve.open unset; a key is asked for")
    given = [argument for node in job.graph.nodes for argument in node.arguments]
    for each in (each for each in given if isinstance(each, TrainingParams)):
        _check_room(max(each.workers, each.max_workers), params)


def _check_room(workers: int, params: LauncherParams) -> None:
    what, each = ("GPUs", params.gpus) if params.gpus else ("CPUs", params.cpus)
    if _apart(params) and workers > each:
        told = f"{workers} training workers, and one node has {each} {what}: over s3:// a step stays on one node"
        raise UserError(told, fix=f"raise kuberay.{what.lower()}, or set kuberay.store=/store")
    if workers > each * params.workers:
        told = f"{workers} training workers, and the nodes have {each * params.workers} {what}"
        raise UserError(told, fix=f"raise kuberay.workers, or kuberay.{what.lower()}")


def _apart(params: LauncherParams) -> bool:
    """Whether nodes share object storage alone."""
    return "://" in params.store
