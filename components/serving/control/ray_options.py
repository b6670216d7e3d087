"""How Ray Serve runs a service: options of its deployment, its environment, and what counts as another code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import raypath

if TYPE_CHECKING:
    from raypath.components.serving.params import ServeParams


def options(params: ServeParams, where: Mapping[str, str]) -> dict[str, object]:
    """Options of the Serve deployment. where: labels of the nodes that replicas may run on."""
    actor: dict[str, object] = {"num_cpus": params.cpus, "num_gpus": params.gpus}
    if environment := worker_environment():
        actor["runtime_env"] = {"env_vars": environment}
    if where:
        actor["label_selector"] = dict(where)
    return {
        **_scale(params),
        "ray_actor_options": actor,
        "max_ongoing_requests": params.max_ongoing,
        "max_queued_requests": params.max_ongoing,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1.0},
        # The new replica first, then the old one goes: the other way round one replica stalls for seconds.
        "max_surge_percent": 100,
        "graceful_shutdown_timeout_s": 10.0,
        "max_constructor_retry_count": 2,
    }


def _scale(params: ServeParams) -> dict[str, object]:
    """How many replicas Serve runs: as many as it was told to, or by the requests that they hold."""
    if not params.max_replicas:
        return {"num_replicas": params.replicas}
    scaling = {
        "min_replicas": params.replicas,
        "max_replicas": params.max_replicas,
        "target_ongoing_requests": params.target_requests,
        "upscale_delay_s": 2.0,
        "downscale_delay_s": params.idle_seconds,
        "metrics_interval_s": 1.0,
        "look_back_period_s": 5.0,
    }
    return {"autoscaling_config": scaling}


def code_version() -> str:
    """Changes with the source that replicas run and with Ray."""
    import ray

    seen = hashlib.sha256(ray.__version__.encode())
    for path in sorted((Path(raypath.__file__).parent / "components").resolve().rglob("*.py")):
        seen.update(path.read_bytes())
    return seen.hexdigest()[:16]


def worker_environment() -> dict[str, str]:
    """Variables that a replica needs as this process has them: where our code and the cache are, where traces go.

    Ray shows them to whoever sees its dashboard, so those that may hold a password stay out (OTEL_*_HEADERS): they have
    to be set where Ray is started.
    """
    tracing = [name for name in os.environ if name.startswith("OTEL_") and not name.endswith("HEADERS")]
    return {name: os.environ[name] for name in ("PYTHONPATH", "RAYPATH_CACHE", *tracing) if name in os.environ}
