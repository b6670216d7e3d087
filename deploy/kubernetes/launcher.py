"""Run a workflow on Kubernetes: a RayJob, whose driver is `python -m raypath.deploy.ray_cluster.driver WORKFLOW`,
and its model's RayService.

Both are made from the manifests in k8s/base, which say what is the same for every one: security, probes, tokens. What
differs is set with `-s kuberay.KEY=...`; how the model is served, with the workflow's own `-s serve.KEY=...`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from raypath.components.core.errors import UserError
from raypath.deploy.execution.cache_key import check_steps
from raypath.deploy.execution.run_history import Run
from raypath.deploy.kubernetes import kubectl
from raypath.deploy.kubernetes import manifests as kube
from raypath.deploy.kubernetes.capacity import check_nodes
from raypath.deploy.kubernetes.params import LauncherParams
from raypath.deploy.kubernetes.rayjobs import RayJobs, here
from raypath.deploy.kubernetes.rayservice import served, service_name, service_of
from raypath.deploy.launchers import Job
from raypath.deploy.remote.follow import begun, follow, say, taken_up
from raypath.deploy.remote.package import check_in_reach


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
    kubectl.check("-n", params.namespace)
    jobs = here(params.namespace)
    if taken_up(job, jobs, params.patience):
        return
    if not params.autoscaler:
        cluster = manifest["spec"]["rayClusterSpec"]
        check_nodes(each["template"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))
    if service:
        kubectl.apply(service)
    run = begun(job, jobs.address)
    run.job = kubectl.create(job_of(job, params, run.id))
    run.save(job.home)
    say(f"{run.job} submitted; see it with `kubectl -n {params.namespace} get rayjob {run.job}`")
    follow(job.home, run, jobs, params.patience)


def attach(home: Path, run: Run) -> None:
    """Follow a run that was submitted from here."""
    jobs = RayJobs(run.where)
    kubectl.check(*jobs.where)
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
