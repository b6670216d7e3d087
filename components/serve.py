"""Serve the champion of a registered model over HTTP with Ray Serve.

What is served is `release.serving`: where the new version lost against the champion, that is the older one. Only the
version changed? Then the replicas load it beside the old one and swap, without a refused request.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from components.core.artifacts import Endpoint, Release
from components.core.component import component
from components.core.context import Context
from components.core.errors import Unavailable
from components.core.params import Params, Positive, Seconds

if TYPE_CHECKING:
    from components.serving.app import Spec
    from components.tasks.bases import Card

PROBES = 5


class ServeParams(Params):
    """How a model is served, and what a client may ask of it."""

    route: Annotated[str, Field(pattern=r"^/([\w.-]+(/[\w.-]+)*)?$")] | None = None
    """Path below the endpoint's address, such as /topics; none takes / while it is free, else /NAME of the model."""
    replicas: Positive = 1
    """Copies of the model, each in a process of its own."""
    cpus: Annotated[float, Field(ge=0.0)] = 0.0
    """CPUs reserved per replica; 0 shares them, as a laptop wants."""
    gpus: Annotated[float, Field(ge=0.0)] = 0.0
    """GPUs reserved per replica; a fraction shares one."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of torch in a replica; 0 takes the CPU cores at hand."""
    batch: Positive = 32
    """Texts in one pass through the model."""
    patience: Annotated[float, Field(gt=0.0)] = 3.0
    """Seconds of work that may wait; what comes on top is refused with 429 and told when to try again."""
    max_items: Positive = 256
    """Texts in one request; more are refused with 422."""
    max_characters: Positive = 20_000
    """Characters in one text; longer ones are refused with 422."""
    max_body: Positive = 4_194_304
    """Bytes in a request's body; larger ones are refused with 413."""
    open: bool = False
    """Answer whoever asks, without a key; on this machine alone."""
    max_ongoing: Positive = 1024
    """Requests that a replica holds at once, waiting or worked on; further ones are refused with 429."""
    request_timeout: Annotated[float, Field(gt=0.0)] = 30.0
    """Seconds until a request is given up with 504."""
    start_timeout: Seconds = 180.0
    """Seconds to wait for the endpoint to answer."""


def _alive(ctx: Context, endpoint: Endpoint) -> bool:
    """Whether the endpoint answers within 2 s, under its name and with its version."""
    from components.serving.deploy import health

    found = health(endpoint.url)
    return found is not None and (found.get("name"), found.get("version")) == (endpoint.name, endpoint.version)


@component(version=1, alive=_alive)
def serve(ctx: Context, release: Release, params: ServeParams) -> Endpoint:
    """Put `release.serving` of `release.name` in service and return once it answers.

    The endpoint's metrics are `ready_seconds` and `request_ms`, the median of five warm requests of the task's probe.
    It asks for a key of `ctx.access`. Raises UserError for an open one beyond this machine, PlatformError when the port
    is taken or Serve cannot start the model, Unavailable when it stays silent.
    """
    from components.serving import cache, deploy, registry
    from components.tasks import task_type
    from components.tasks.bases import read_card

    base = (ctx.serve_url or deploy.DEFAULT_URL).rstrip("/")
    deploy.check_open(base, _access(ctx, params))
    began = time.monotonic()
    source = registry.source_of(ctx.tracking.uri, release.name, release.serving)
    # Into this machine's cache: a replica here then starts without MLflow, even while that is away.
    wanted = f"models:/{release.name}/{release.serving}"
    card = read_card(registry.resolve(ctx.tracking.uri, wanted, cache.cache_folder())[2])
    ctx.report(1, 3, "starting Ray Serve")
    deploy.start(base, params.request_timeout + 5.0)
    route = deploy.free_route(base, release.name, params.route)
    url = base + route.rstrip("/")
    deploy.deploy(_spec(ctx, release, card, params, base, route), release.serving, source)
    ctx.report(2, 3, "waiting for the endpoint")
    deploy.wait(url, release.name, release.serving, params.start_timeout)
    ready = time.monotonic() - began
    metrics = {"ready_seconds": ready, "request_ms": _request_ms(ctx, url, params, task_type(card.task).probe)}
    ctx.track.metrics(metrics)
    (ctx.out / "endpoint.json").write_text(json.dumps({"url": url, "name": release.name, "version": release.serving}))
    return Endpoint(url=url, name=release.name, version=release.serving, metrics=metrics)


def _access(ctx: Context, params: ServeParams) -> str:
    """The folder of the keys, "" for an endpoint that asks for none."""
    return "" if params.open or ctx.access is None else str(ctx.access)


def _spec(ctx: Context, release: Release, card: Card, params: ServeParams, base: str, route: str) -> Spec:
    from components.serving.app import Spec
    from components.serving.limits import Limits

    limits = Limits(
        items=params.max_items,
        characters=params.max_characters,
        body=params.max_body,
        seconds=params.request_timeout,
        batch=params.batch,
        patience=params.patience,
    )
    threads = params.threads or max(1, ctx.workers // params.replicas)
    return Spec(
        name=release.name,
        task=card.task,
        label_kind=card.label_kind,
        tracking=ctx.tracking.uri,
        url=base + route.rstrip("/"),
        route=route,
        threads=threads,
        limits=limits,
        access=_access(ctx, params),
        options=_options(params),
    )


def _options(params: ServeParams) -> dict[str, object]:
    """Options of the Serve deployment."""
    from components.serving.deploy import worker_environment

    actor: dict[str, object] = {"num_cpus": params.cpus, "num_gpus": params.gpus}
    if environment := worker_environment():
        actor["runtime_env"] = {"env_vars": environment}
    return {
        "num_replicas": params.replicas,
        "ray_actor_options": actor,
        "max_ongoing_requests": params.max_ongoing,
        "max_queued_requests": params.max_ongoing,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1.0},
        # The new replica first, then the old one goes: the other way round one replica stalls for seconds.
        "max_surge_percent": 100,
        "graceful_shutdown_timeout_s": 10.0,
        "max_constructor_retry_count": 2,
    }


def _request_ms(ctx: Context, url: str, params: ServeParams, probe: dict[str, Any]) -> float:
    from components.serving.deploy import predict
    from components.serving.keys import local_key

    access = _access(ctx, params)
    key = local_key(Path(access)).read_text(encoding="utf-8") if access else ""
    taken = []
    for _ in range(PROBES):
        start = time.perf_counter()
        if predict(url, probe, params.request_timeout, key) is None:
            raise Unavailable(f"{url} is healthy but does not predict", fix="look at the logs of Ray Serve")
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)
