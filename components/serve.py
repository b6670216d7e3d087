"""Serve the champion of a registered model over HTTP with Ray Serve.

What is served is `release.serving`: where the new version lost against the champion, that is the older one. Only the
version changed? Then the replicas load it beside the old one and swap, without a refused request.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypath.components.core.artifacts import Endpoint, Release
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import Unavailable
from raypath.components.serving.control.endpoint_spec import check_scale, spec_of
from raypath.components.serving.params import ServeParams

if TYPE_CHECKING:
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.serving.spec import EndpointSpec

PROBES = 5


def _alive(ctx: Context, endpoint: Endpoint) -> bool:
    """Whether the endpoint is there, under its name and with its version; told within some seconds.

    One that may sleep is not asked itself, which would wake it: Serve's proxy knows it, and it answers as the champion.
    """
    from raypath.components.registry.aliases import alias_target
    from raypath.components.registry.tags import CHAMPION
    from raypath.components.serving.control.client import health
    from raypath.components.serving.control.proxy import has_route

    if not endpoint.scales_to_zero and (found := health(endpoint.url)) is not None:
        return (found.get("name"), found.get("version")) == (endpoint.name, endpoint.version)
    if not ctx.tracking.uri or not has_route(endpoint.url, endpoint.name):
        return False
    champion = alias_target(ctx.tracking.uri, endpoint.name, CHAMPION)
    return champion is not None and champion[0] == endpoint.version


@component(version=1, alive=_alive)
def serve(ctx: Context, release: Release, params: ServeParams) -> Endpoint:
    """Put `release.serving` of `release.name` in service and return once it answers.

    The endpoint's metrics are `ready_seconds` and `request_ms`, the median of five warm requests of the task's probe.
    It asks for a key of `ctx.api_keys`. Raises UserError for an open one beyond this machine, PlatformError when the
    port is taken, Serve cannot start the model, or a replica refuses it (the champion before then has the alias again),
    Unavailable when it stays silent.
    """
    from raypath.components.models.metadata import read_metadata
    from raypath.components.registry import cache
    from raypath.components.registry import client as registry
    from raypath.components.serving.control import proxy, rollout
    from raypath.components.tasks.catalog import task_type

    check_scale(params)
    if given := os.environ.get("RAYPATH_ENDPOINT", "").rstrip("/"):
        return _elsewhere(ctx, release, params, given)
    base = (ctx.serve_url or proxy.DEFAULT_URL).rstrip("/")
    for address in filter(None, (base, ctx.public_url)):
        proxy.check_public_access(address, _access(ctx, params))
    began = time.monotonic()
    # Into this machine's cache: a replica here then starts without MLflow, even while that is away.
    wanted = f"models:/{release.name}/{release.serving}"
    metadata = read_metadata(registry.resolve(ctx.tracking.uri, wanted, cache.cache_folder())[2])
    ctx.report(1, 3, "starting Ray Serve")
    # Replicas keep request_timeout by themselves; in the proxy a request may have to wait for a first one to start.
    proxy.start(base, params.request_timeout + params.start_timeout)
    route = proxy.choose_route(base, release.name, params.route)
    url = base + route.rstrip("/")
    ctx.report(2, 3, "waiting for the endpoint")
    rollout.roll_out(
        [_spec(ctx, release, metadata, params, base, route)], release.name, release.serving, params.start_timeout
    )
    ready = time.monotonic() - began
    metrics = {"ready_seconds": ready, "request_ms": _request_ms(ctx, url, params, task_type(metadata.task).probe)}
    return _endpoint(ctx, release, params, url, metrics)


def _elsewhere(ctx: Context, release: Release, params: ServeParams, url: str) -> Endpoint:
    """Wait for an endpoint that follows the registry by itself (a RayService). Raises PlatformError, Unavailable."""
    from raypath.components.serving.control.rollout import wait_for_version

    ctx.report(1, 2, "waiting for the endpoint")
    ready = wait_for_version(url, ctx.tracking.uri, release.name, release.serving, params.start_timeout)
    return _endpoint(ctx, release, params, url, {"ready_seconds": ready})


def _endpoint(ctx: Context, release: Release, params: ServeParams, url: str, metrics: dict[str, float]) -> Endpoint:
    ctx.track.metrics(metrics)
    (ctx.out / "endpoint.json").write_text(json.dumps({"url": url, "name": release.name, "version": release.serving}))
    return Endpoint(
        url=url, name=release.name, version=release.serving, scales_to_zero=params.replicas == 0, metrics=metrics
    )


def _access(ctx: Context, params: ServeParams) -> str:
    """The folder of the keys, "" for an endpoint that asks for none."""
    return "" if params.open or ctx.api_keys is None else str(ctx.api_keys)


def _spec(
    ctx: Context, release: Release, metadata: ModelMetadata, params: ServeParams, base: str, route: str
) -> EndpointSpec:
    kept = str(ctx.predictions / release.name) if params.log_predictions and ctx.predictions else ""
    return spec_of(
        params, metadata, name=release.name, tracking=ctx.tracking.uri, base=base, route=route, cores=ctx.workers,
        access=_access(ctx, params), predictions=kept, where=ctx.selector,
    )  # fmt: skip


def _request_ms(ctx: Context, url: str, params: ServeParams, probe: dict[str, Any]) -> float:
    from raypath.components.serving.control.client import predict
    from raypath.components.serving.metering.api_keys import local_key

    access = _access(ctx, params)
    key = local_key(Path(access)).read_text(encoding="utf-8") if access else ""
    taken = []
    for _ in range(PROBES):
        start = time.perf_counter()
        if predict(url, probe, params.request_timeout, key) is None:
            raise Unavailable(f"{url} is healthy but does not predict", fix="look at the logs of Ray Serve")
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)
