"""Launcher for Kubeflow Pipelines: `raypath render|run|schedule WORKFLOW --on kubeflow -s kubeflow.KEY=...`.

Each step is a container of the image built from deploy/image/Dockerfile (`raypath.deploy.kubeflow.container`).
`raypath.deploy.kubeflow.pipeline` builds the pipeline; this module has its settings, and configures the containers.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

from pydantic import Field

from raypath.components.core.artifacts import Release
from raypath.components.core.errors import ParamsError, UserError
from raypath.components.core.params import NonNegative, Params, Positive, Seconds
from raypath.components.data.streaming import shard_cache
from raypath.components.models import bf16
from raypath.components.registry.signing.keys import PRIVATE, PUBLIC
from raypath.deploy.execution.cache_key import check_steps
from raypath.deploy.kubeflow import api, pipeline
from raypath.deploy.kubernetes import manifests as kube
from raypath.deploy.kubernetes.params import LABEL, Label
from raypath.deploy.kubernetes.quantities import Quantity, integral
from raypath.deploy.launchers import RunRequest
from raypath.deploy.remote.package import check_visible_to_pods

MAX_NAME = 57
"""Characters of a pipeline's name: Kubernetes allows 63 for that of a run, to which Kubeflow adds 6."""
_SECRETS = [f"AWS_{key}" for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "ENDPOINT_URL")]


class Size(Params):
    """Resources of a container; None takes the pipeline's."""

    cpus: Annotated[float, Field(gt=0.0)] | None = None
    memory: Quantity | None = None
    gpus: NonNegative | None = None


class KubeflowParams(Params):
    """Settings of a run on Kubeflow Pipelines."""

    image: str = ""
    """Image built from deploy/image/Dockerfile, REPOSITORY@sha256:DIGEST."""
    loaded: bool = False
    """The image was loaded onto the nodes by hand (`kind load`); it is never pulled and needs no digest."""
    name: Label | None = None
    """Name of the pipeline; none takes the workflow's, with - for _."""
    experiment: str = "raypath"
    """Kubeflow experiment that lists the runs."""
    namespace: Label | None = None
    """Namespace of the user, for a multi-user Kubeflow."""
    store: str = ""
    """Artifact store that all steps share: s3://BUCKET/PREFIX, or the path at which the claim is mounted."""
    claim: str = ""
    """PersistentVolumeClaim (ReadWriteMany) that is mounted at `store`, for a store that is a path."""
    secret: str = "raypath-storage"
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally AWS_ENDPOINT_URL, for S3."""
    mlflow_secret: str = "raypath-mlflow"
    """Secret with MLFLOW_TRACKING_TOKEN, in the namespace of the pipelines' pods."""
    tracking: str = "http://mlflow.raypath:5000"
    """URL of the MLflow server; empty turns tracking off."""
    endpoint: str = ""
    """URL of the RayService that follows the registered model, for a workflow that serves."""
    cpus: Annotated[float, Field(gt=0.0)] = 2.0
    """CPUs of a container."""
    memory: Quantity = "8Gi"
    """Memory of a container."""
    gpus: NonNegative = 0
    """GPUs of a container whose step trains."""
    accelerator: str = "nvidia.com/gpu"
    """Kubernetes resource name of the GPUs."""
    steps: dict[str, Size] = Field(default={})
    """Resources by step: `-s kubeflow.steps.finetune.gpus=4`."""
    retries: NonNegative = 2
    """Retries of a container. Committed steps are reused, and training resumes from its checkpoint."""
    ray: tuple[str, ...] = ()
    """Steps that run on a Ray cluster of their own (a RayJob); each other step runs in one container."""
    ray_namespace: Label = "raypath"
    """Namespace in which k8s/base was applied, for those steps."""
    workers: Positive = 1
    """Worker nodes of such a cluster."""
    deadline: Seconds = 86_400.0
    """Seconds after which a step is stopped, and after which the client stops following the run."""


PARAMS = KubeflowParams


def render(request: RunRequest, params: KubeflowParams) -> str:
    """Render the pipeline's YAML. Raises UserError for settings that Kubeflow or Kubernetes would reject."""
    check(request, params)
    words = {step: ("--ray", json.dumps(rayjob_settings(request, params, step))) for step in params.ray}
    target = pipeline.Target(params.image, lambda task, step: configure_task(task, step, request, params), words)
    return pipeline.compile_pipeline(
        request.graph, request.workflow, pipeline_name(request, params), target, request.fresh
    )


def run(request: RunRequest, params: KubeflowParams) -> None:
    """Submit the pipeline and follow the run to its end. Raises UserError, Unavailable, PlatformError."""
    check_visible_to_pods(
        request.graph, params.store
    )  # not in `render`: kfp.local runs a rendered pipeline on this machine
    name, text = pipeline_name(request, params), render(request, params)
    client = api.connect(request.address)
    made = api.submit(client, text, name, params.experiment, params.namespace)
    print(f"{name}: run {made}; see it at {request.address.rstrip('/')}/#/runs/details/{made}", flush=True)
    api.follow(client, made, name, params.deadline)


def schedule(request: RunRequest, cron: str, params: KubeflowParams) -> str:
    """The recurring run as JSON for Kubeflow's API: POST it to ADDRESS/apis/v2beta1/recurringruns."""
    check_visible_to_pods(request.graph, params.store)
    about = f"raypath schedule {request.workflow} --on kubeflow"
    return api.recurring(render(request, params), pipeline_name(request, params), about, cron, params.namespace)


def pipeline_name(request: RunRequest, params: KubeflowParams) -> str:
    """The pipeline's name. Raises UserError for one that is too long or invalid in Kubernetes."""
    name = params.name or request.graph.workflow.replace("_", "-").lower()
    if len(name) > MAX_NAME:
        raise UserError(f"{name} has {len(name)} characters; Kubeflow allows {MAX_NAME}", fix="set kubeflow.name")
    if not re.fullmatch(LABEL, name):
        raise UserError(
            f"{name!r} is not a valid Kubernetes name: use a-z, 0-9 and -, a letter first", fix="set kubeflow.name"
        )
    return name


def check(request: RunRequest, params: KubeflowParams) -> None:
    """Raise UserError for settings with which the pipeline could not run."""
    from raypath.components.core.artifacts import Endpoint

    kube.set_image([], params.image, params.loaded, "kubeflow")
    steps = [node.name for node in request.graph.nodes]
    for setting, names in (("kubeflow.ray", params.ray), ("kubeflow.steps", params.steps)):
        if unknown := [name for name in names if name not in steps]:
            raise ParamsError(
                f"{setting} names {unknown[0]}, which is not a step", fix=f"the steps are {', '.join(steps)}"
            )
    check_steps(request.graph, request.fresh)
    if long := next((name for name in steps if len(name) > MAX_NAME), ""):
        raise UserError(f"step {long} has {len(long)} characters; Kubeflow allows {MAX_NAME}", fix="name it shorter")
    _check_store(params)
    serving = [node.name for node in request.graph.nodes if issubclass(node.component.output, Endpoint)]
    if serving and not params.endpoint:
        fix = "set kubeflow.endpoint to the URL of the RayService of `raypath render --on kuberay`"
        raise UserError(f"an endpoint of step {serving[0]} would end with its container", fix=fix)
    for step in params.ray:
        rayjob_settings(request, params, step)


def _check_store(params: KubeflowParams) -> None:
    if not params.store:
        raise UserError(
            "no store is set, so steps would not find each other's artifacts", fix="-s kubeflow.store=s3://..."
        )
    if not params.store.startswith(("s3://", "/")):
        raise UserError(
            f"kubeflow.store={params.store} is not shared between pods", fix="use s3://BUCKET/PREFIX or a mounted path"
        )
    if params.store.startswith("/") and not params.claim:
        fix = "set kubeflow.claim to the claim that is mounted there, or use s3://BUCKET/PREFIX"
        raise UserError(f"kubeflow.store={params.store} is not on a mounted volume", fix=fix)


def rayjob_settings(request: RunRequest, params: KubeflowParams, step: str) -> dict[str, Any]:
    """Settings of a step's RayJob for `raypath.deploy.kubernetes.launcher`. Raises UserError for invalid ones."""
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
    """CPUs, memory and GPUs of a step; GPUs only for steps that train."""
    from raypath.components.training.params import TrainingParams

    arguments = next(node.arguments for node in request.graph.nodes if node.name == step)
    trains = any(isinstance(argument, TrainingParams) for argument in arguments)
    defaults = {"cpus": params.cpus, "memory": params.memory, "gpus": params.gpus if trains else 0}
    own = params.steps.get(step, Size()).model_dump(exclude_none=True)
    return Size.model_validate(defaults | own)


def configure_task(task: Any, step: str, request: RunRequest, params: KubeflowParams) -> None:
    """Set resources, environment and security of a container. Containers that only check or wait get few resources."""
    k8s = pipeline.kfp().kubernetes
    is_small = not step or step in params.ray
    size = Size(cpus=1.0, memory="2Gi", gpus=0) if is_small else size_of(request, params, step)
    task.set_cpu_request(f"{size.cpus:g}").set_cpu_limit(f"{size.cpus:g}")
    memory = integral(size.memory or params.memory)
    task.set_memory_request(memory).set_memory_limit(memory)
    if size.gpus:
        task.set_accelerator_type(params.accelerator).set_accelerator_limit(size.gpus)
        k8s.add_toleration(task, key=params.accelerator, operator="Exists", effect="NoSchedule")
    environment = {"RAYPATH_STORE": params.store, "MLFLOW_TRACKING_URI": params.tracking}
    environment |= bf16.passed_environment() | shard_cache.passed_environment()
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
    k8s.use_secret_as_env(task, "raypath-trusted", {PUBLIC: PUBLIC}, optional=True)
    if any(node.name == step and node.component.output is Release for node in request.graph.nodes):
        # The step that registers models is the only one with the key that signs them.
        k8s.use_secret_as_env(task, "raypath-signing", {PRIVATE: PRIVATE}, optional=True)
    if params.tracking and params.mlflow_secret:
        name = "MLFLOW_TRACKING_TOKEN"
        k8s.use_secret_as_env(task, params.mlflow_secret, {name: name}, optional=True)
    if not is_small:
        # Ray's object store and torch's workers use shared memory, of which a container has 64 MiB by default.
        k8s.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory")  # nosec
