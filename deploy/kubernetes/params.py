"""Settings of a run on KubeRay."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raypath.components.core.params import NonNegative, Params, Positive, Seconds

_LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"


Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti)$")]


class KubeRayParams(Params):
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
    reconnect_timeout: Seconds = 600.0
    """How long a lost connection is tried again."""
    raycronjob: bool = False
    """`raypath schedule` makes a RayCronJob, which KubeRay takes with its feature gate RayCronJob, not a CronJob."""
