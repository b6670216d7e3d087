"""Run a workflow as a Kubeflow pipeline: `raypath render|run|schedule WORKFLOW --on kubeflow -s kubeflow.KEY=...`.

Each step is a container of the image that deploy/image/Dockerfile makes (`raypath.deploy.kubeflow.container`). What
the pipeline is made of is
in `raypath.deploy.kubeflow.pipeline`; here stand its settings, what Kubernetes is told, and Kubeflow's API.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

from pydantic import Field

from raypath.components.core.errors import ParamsError, UserError
from raypath.components.core.params import NonNegative, Params, Positive, Seconds
from raypath.deploy.execution.cache_key import check_steps
from raypath.deploy.kubeflow import api, pipeline
from raypath.deploy.kubernetes import manifests as kube
from raypath.deploy.launchers import RunRequest
from raypath.deploy.remote.package import check_visible_to_pods

LONGEST = 57
"""Characters of a pipeline's name: Kubernetes takes 63 for that of a run, of which Kubeflow adds 6."""
_LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
Label = Annotated[str, Field(pattern=_LABEL)]
Quantity = Annotated[str, Field(pattern=r"^\d+(Ki|Mi|Gi|Ti)$")]
_SECRETS = [f"AWS_{key}" for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "ENDPOINT_URL")]


class Size(Params):
    """What a container gets; what is left out is as for all."""

    cpus: Annotated[float, Field(gt=0.0)] | None = None
    memory: Quantity | None = None
    gpus: NonNegative | None = None


class KubeflowParams(Params):
    """What a pipeline gets of Kubeflow."""

    image: str = ""
    """REPOSITORY@sha256:DIGEST of what deploy/image/Dockerfile makes."""
    loaded: bool = False
    """The image was loaded onto the nodes by hand (`kind load`): it is never pulled, and needs no digest."""
    name: Label | None = None
    """Of the pipeline; none takes the workflow's, with - for _."""
    experiment: str = "raypath"
    """In which Kubeflow lists the runs."""
    namespace: Label | None = None
    """Of the user, where Kubeflow has many."""
    store: str = ""
    """s3://BUCKET/PREFIX, or a path at which the claim is mounted: what all steps share."""
    claim: str = ""
    """PersistentVolumeClaim (ReadWriteMany) that is mounted at `store`, for a store that is a path."""
    secret: str = "raypath-storage"
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_ENDPOINT_URL, for store or data on S3."""
    tracking: str = "http://mlflow.raypath:5000"
    """Address of the MLflow server; none tracks nothing."""
    endpoint: str = ""
    """Address of the RayService that follows the registered model, for a workflow that serves."""
    cpus: Annotated[float, Field(gt=0.0)] = 2.0
    """CPUs of a container."""
    memory: Quantity = "8Gi"
    """Memory of a container."""
    gpus: NonNegative = 0
    """GPUs of a container that trains."""
    accelerator: str = "nvidia.com/gpu"
    """What Kubernetes calls such a GPU."""
    steps: dict[str, Size] = Field(default={})
    """By step: `-s kubeflow.steps.finetune.gpus=4`."""
    retries: NonNegative = 2
    """Times a container is started again; what is committed is not run again, and training goes on."""
    ray: tuple[str, ...] = ()
    """Steps that run on a Ray cluster of their own (RayJob), of nodes of their size; the others on one machine each."""
    ray_namespace: Label = "raypath"
    """Where k8s/base was applied, for these."""
    workers: Positive = 1
    """Nodes of such a cluster, beside its head."""
    deadline: Seconds = 86_400.0
    """Seconds until a step, and on the command line the run, is given up."""


PARAMS = KubeflowParams


def render(request: RunRequest, params: KubeflowParams) -> str:
    """The pipeline's YAML. Raises UserError for what Kubeflow or Kubernetes would refuse."""
    check(request, params)
    words = {step: ("--ray", json.dumps(on_ray(request, params, step))) for step in params.ray}
    place = pipeline.Place(params.image, lambda task, step: dress(task, step, request, params), words)
    return pipeline.compiled(request.graph, request.workflow, name_of(request, params), place, request.fresh)


def run(request: RunRequest, params: KubeflowParams) -> None:
    """Submit it and follow it to its end. Raises UserError, Unavailable, PlatformError."""
    check_visible_to_pods(request.graph, params.store)  # `kfp.local` runs what is only rendered on this machine
    name, text = name_of(request, params), render(request, params)
    client = api.connected(request.address)
    made = api.submit(client, text, name, params.experiment, params.namespace)
    print(f"{name}: run {made}; see it at {request.address.rstrip('/')}/#/runs/details/{made}", flush=True)
    api.follow(client, made, name, params.deadline)


def schedule(request: RunRequest, cron: str, params: KubeflowParams) -> str:
    """The recurring run, as Kubeflow's API takes it: POST it to ADDRESS/apis/v2beta1/recurringruns."""
    check_visible_to_pods(request.graph, params.store)
    about = f"raypath schedule {request.workflow} --on kubeflow"
    return api.recurring(render(request, params), name_of(request, params), about, cron, params.namespace)


def name_of(request: RunRequest, params: KubeflowParams) -> str:
    """The pipeline's name. Raises UserError for one that is too long, or none to Kubernetes."""
    name = params.name or request.graph.workflow.replace("_", "-").lower()
    if len(name) > LONGEST:
        raise UserError(f"{name} has {len(name)} characters, and Kubeflow takes {LONGEST}", fix="set kubeflow.name")
    if not re.fullmatch(_LABEL, name):
        raise UserError(f"{name!r} is no name in Kubernetes: a-z, 0-9 and -, a letter first", fix="set kubeflow.name")
    return name


def check(request: RunRequest, params: KubeflowParams) -> None:
    """Raise UserError for what could not run there, before anything is paid for."""
    from raypath.components.core.artifacts import Endpoint

    kube.image([], params.image, params.loaded, "kubeflow")
    steps = [node.name for node in request.graph.nodes]
    for setting, names in (("kubeflow.ray", params.ray), ("kubeflow.steps", params.steps)):
        if unknown := [name for name in names if name not in steps]:
            raise ParamsError(f"{setting} names {unknown[0]}, which is no step", fix=f"there are {', '.join(steps)}")
    check_steps(request.graph, request.fresh)
    if long := next((name for name in steps if len(name) > LONGEST), ""):
        raise UserError(f"step {long} has {len(long)} characters, and Kubeflow takes {LONGEST}", fix="name it shorter")
    _check_store(params)
    serving = [node.name for node in request.graph.nodes if issubclass(node.component.output, Endpoint)]
    if serving and not params.endpoint:
        fix = "set kubeflow.endpoint to the address of the RayService of `raypath render --on kuberay`"
        raise UserError(f"an endpoint of {serving[0]} would end with its container", fix=fix)
    for step in params.ray:
        on_ray(request, params, step)


def _check_store(params: KubeflowParams) -> None:
    if not params.store:
        raise UserError("no store is set: steps would not find each other's files", fix="-s kubeflow.store=s3://...")
    if not params.store.startswith(("s3://", "/")):
        raise UserError(f"kubeflow.store={params.store} is no place for all", fix="use s3://BUCKET/PREFIX or /PATH")
    if params.store.startswith("/") and not params.claim:
        fix = "set kubeflow.claim to the claim that is mounted there, or use s3://BUCKET/PREFIX"
        raise UserError(f"kubeflow.store={params.store} is on no volume", fix=fix)


def on_ray(request: RunRequest, params: KubeflowParams, step: str) -> dict[str, Any]:
    """The settings of a step's RayJob, as `raypath.deploy.kubernetes.launcher` takes them. Raises UserError for what
    it would refuse."""
    from raypath.deploy.kubernetes import launcher as kuberay
    from raypath.deploy.kubernetes.params import KubeRayParams

    size = size_of(request, params, step)
    cpus = math.ceil(size.cpus or 1)
    settings: dict[str, Any] = {
        "image": params.image, "loaded": params.loaded, "namespace": params.ray_namespace, "workers": params.workers,
        "cpus": cpus, "memory": size.memory, "gpus": size.gpus, "head_cpus": min(cpus, 2), "store": params.store,
        "tracking": params.tracking, "deadline": params.deadline, "endpoint": False,
    }  # fmt: skip
    kuberay.rayjob_manifest(request, KubeRayParams().override(settings))
    return settings


def size_of(request: RunRequest, params: KubeflowParams, step: str) -> Size:
    """CPUs, memory and GPUs of a step; GPUs are for those that train."""
    from raypath.components.training.params import TrainingParams

    arguments = next(node.arguments for node in request.graph.nodes if node.name == step)
    trains = any(isinstance(argument, TrainingParams) for argument in arguments)
    usual = {"cpus": params.cpus, "memory": params.memory, "gpus": params.gpus if trains else 0}
    own = params.steps.get(step, Size()).model_dump(exclude_none=True)
    return Size.model_validate(usual | own)


def dress(task: Any, step: str, request: RunRequest, params: KubeflowParams) -> None:
    """Tell Kubernetes what a container gets. One that only checks or waits gets little."""
    k8s = pipeline.kfp().kubernetes
    waits = not step or step in params.ray
    size = Size(cpus=1.0, memory="2Gi", gpus=0) if waits else size_of(request, params, step)
    task.set_cpu_request(f"{size.cpus:g}").set_cpu_limit(f"{size.cpus:g}")
    task.set_memory_request(size.memory).set_memory_limit(size.memory)
    if size.gpus:
        task.set_accelerator_type(params.accelerator).set_accelerator_limit(size.gpus)
        k8s.add_toleration(task, key=params.accelerator, operator="Exists", effect="NoSchedule")
    environment = {"RAYPATH_STORE": params.store, "MLFLOW_TRACKING_URI": params.tracking}
    for name, value in {**environment, "RAYPATH_ENDPOINT": params.endpoint}.items():
        if value:
            task.set_env_variable(name, value)
    task.set_retry(params.retries, backoff_duration="10s", backoff_factor=2.0, backoff_max_duration="300s")
    k8s.set_security_context(task, run_as_user=1000, run_as_group=1000, run_as_non_root=True)
    k8s.set_timeout(task, int(params.deadline))
    k8s.set_image_pull_policy(task, "Never" if params.loaded else "IfNotPresent")
    if params.claim:
        k8s.mount_pvc(task, pvc_name=params.claim, mount_path=params.store)
    k8s.use_secret_as_env(task, params.secret, {name: name for name in _SECRETS}, optional=True)
    if not waits:
        # Ray's objects and torch's workers share memory; a container comes with 64 MiB of it.
        k8s.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory")
