"""Settings of a run on KubeRay."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raypath.components.core.params import NonNegative, Params, Positive, Seconds
from raypath.deploy.kubernetes.quantities import Quantity

LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
Label = Annotated[str, Field(pattern=LABEL)]
"""A name that Kubernetes accepts."""


class KubeRayParams(Params):
    """Settings of a run on Kubernetes with KubeRay."""

    image: str = ""
    """Image built from deploy/image/Dockerfile, REPOSITORY@sha256:DIGEST."""
    loaded: bool = False
    """The image was loaded onto the nodes by hand (`kind load`); it is never pulled and needs no digest."""
    name: Label | None = None
    """Name of the RayJob; none takes the workflow's, with - for _."""
    namespace: Label = "raypath"
    """Namespace in which k8s/base was applied."""
    workers: Positive = 1
    """Worker nodes of the job's Ray cluster."""
    cpus: Positive = 2
    """CPUs of a worker node."""
    memory: Quantity = "8Gi"
    """Memory of a worker node."""
    gpus: NonNegative = 0
    """GPUs of a worker node."""
    head_cpus: Positive = 2
    """CPUs of the head, which runs the driver but no steps."""
    head_memory: Quantity = "8Gi"
    """Memory of the head."""
    serve_memory: Quantity = "4Gi"
    """Memory of a node of the endpoint; its CPUs and GPUs are those that one replica reserves."""
    model_cache: Quantity | None = "50Gi"
    """Size of the volume in which the replicas of a language model keep its versions (ReadWriteMany); none keeps them
    in each pod."""
    store: str = "/store"
    """Artifact store: s3://BUCKET/PREFIX, or a path below /store, where the claim raypath-store is mounted."""
    tracking: str = "http://mlflow:5000"
    """URL of the MLflow server."""
    endpoint: bool = True
    """Render the model's RayService with the job, for a workflow that serves one."""
    queue: str = ""
    """LocalQueue of Kueue in which the job waits for capacity."""
    retries: NonNegative = 0
    """New clusters for a failed job. Committed steps are reused, but a user's mistake is repeated."""
    autoscaler: bool = False
    """Nodes are added on demand: skip the check of pods against the present nodes."""
    deadline: Seconds = 86_400.0
    """Seconds after which the job is stopped."""
    reconnect_timeout: Seconds = 600.0
    """Seconds to keep reconnecting after a lost connection."""
    raycronjob: bool = False
    """`raypath schedule` creates a RayCronJob, which needs KubeRay's feature gate RayCronJob, instead of a CronJob."""
