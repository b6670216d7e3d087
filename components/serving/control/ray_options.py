"""Options of the Ray Serve deployment: scaling, resources, environment, code version."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import raypath
from raypath.components.models import bf16
from raypath.components.serving.control.autoscaling import WaitingTokensPolicy

if TYPE_CHECKING:
    from raypath.components.serving.params import ServeParams


HEALTH_SECONDS = 2.0
"""Seconds between two health checks of a replica. One that fails three in a row is replaced."""
DRAIN_SECONDS = 5.0
"""Seconds for which a replica that stops waits longer than a request may take."""
DRAIN_CHECK_SECONDS = 0.5
"""Seconds between two looks of a replica that stops at its requests; the first is after one such pause."""


def deployment_options(
    params: ServeParams, node_labels: Mapping[str, str], by_tokens: bool = False
) -> dict[str, object]:
    """Return the options of the Serve deployment.

    Args:
        node_labels: Labels of nodes that replicas may run on; {} for any.
        by_tokens: Scale with the tokens that wait, not with the requests: the endpoint is a language model's.
    """
    actor: dict[str, object] = {"num_cpus": params.cpus, "num_gpus": params.gpus}
    if environment := worker_environment():
        actor["runtime_env"] = {"env_vars": environment}
    if node_labels:
        actor["label_selector"] = dict(node_labels)
    return {
        **_scale(params, by_tokens),
        "ray_actor_options": actor,
        "max_ongoing_requests": params.max_ongoing,
        "max_queued_requests": params.max_ongoing,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1.0},
        # Start the new replica before the old one stops; otherwise a single replica stalls for seconds.
        "max_surge_percent": 100,
        # Requests in progress are completed by a replica that stops. Serve ends it by force afterwards.
        "graceful_shutdown_timeout_s": params.request_timeout + DRAIN_SECONDS,
        "health_check_period_s": HEALTH_SECONDS,
        "graceful_shutdown_wait_loop_s": DRAIN_CHECK_SECONDS,
        "max_constructor_retry_count": 2,
    }


def _scale(params: ServeParams, by_tokens: bool) -> dict[str, object]:
    """Return a fixed number of replicas, or autoscaling by ongoing requests or by tokens that wait."""
    if not params.max_replicas:
        return {"num_replicas": params.replicas}
    scaling: dict[str, object] = {
        "min_replicas": params.replicas,
        "max_replicas": params.max_replicas,
        "target_ongoing_requests": params.target_requests,
        "upscale_delay_s": 2.0,
        "downscale_delay_s": params.idle_seconds,
        "metrics_interval_s": 1.0,
        "look_back_period_s": 5.0,
    }
    if by_tokens:
        path = f"{WaitingTokensPolicy.__module__}.{WaitingTokensPolicy.__name__}"
        scaling["policy"] = {"policy_function": path, "policy_kwargs": {"target": params.target_tokens}}
    return {"autoscaling_config": scaling}


def code_version() -> str:
    """Return a digest of the source that replicas run and of Ray's version."""
    import ray

    digest = hashlib.sha256(ray.__version__.encode())
    for path in sorted((Path(raypath.__file__).parent / "components").resolve().rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def worker_environment() -> dict[str, str]:
    """Return the environment variables that replicas take from this process: code, model cache, precision, tracing.

    Ray's dashboard shows them, so variables that may contain a password (OTEL_*_HEADERS) are left out and have to be
    set where Ray is started.
    """
    tracing = [name for name in os.environ if name.startswith("OTEL_") and not name.endswith("HEADERS")]
    passed = ("PYTHONPATH", "RAYPATH_CACHE", bf16.VARIABLE, *tracing)
    return {name: os.environ[name] for name in passed if name in os.environ}
