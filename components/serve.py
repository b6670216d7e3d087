"""Serve the champion of a registered model over HTTP with Ray Serve.

What is served is `release.serving`: where the new version lost against the champion, that is the older one. Only the
version changed? Then the replicas load it beside the old one and swap, without a refused request.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from raypath.components.core.artifacts import Endpoint, Release
from raypath.components.core.component import component
from raypath.components.core.context import Context
from raypath.components.core.errors import ParamsError, Unavailable
from raypath.components.core.params import NonNegative, Params, Positive, Seconds

if TYPE_CHECKING:
    from raypath.components.models.base_models import Card
    from raypath.components.serving.spec import Spec

PROBES = 5


class ServeParams(Params):
    """How a model is served, and what a client may ask of it."""

    route: Annotated[str, Field(pattern=r"^/([\w.-]+(/[\w.-]+)*)?$")] | None = None
    """Path below the endpoint's address, such as /topics; none takes / while it is free, else /NAME of the model."""
    replicas: NonNegative = 1
    """Copies of the model, each in a process of its own; with max_replicas the fewest, and 0 then is allowed."""
    max_replicas: NonNegative = 0
    """Most copies: as many run as the load takes; 0 keeps `replicas`."""
    target_requests: Annotated[float, Field(gt=0.0)] = 16.0
    """Requests that a copy is to hold at a time, by which max_replicas counts how many it takes."""
    idle_seconds: Seconds = 300.0
    """How long a copy more than is needed is kept."""
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
    canary: Annotated[str, Field(pattern=r"^[\w-]+:\d+(\.\d+)?$")] | None = None
    """ALIAS:PERCENT, such as challenger:5: the version under this alias answers that share of the requests."""
    shadow: Annotated[str, Field(pattern=r"^[\w-]+$")] | None = None
    """Alias of a version that is asked too when nobody waits; its answers are compared and never returned."""
    also: tuple[str, ...] = ()
    """Names of other registered models, whose champions this service answers with at /models/NAME."""
    log_requests: bool = False
    """Log every request as a line of JSON, without its texts; errors of the server are always logged."""
    log_predictions: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the requests whose predictions are kept as Parquet in .raypath/predictions."""
    log_texts: bool = False
    """Keep the texts of those requests too."""
    open: bool = False
    """Answer whoever asks, without a key; on this machine alone."""
    max_ongoing: Positive = 256
    """Requests that a replica holds at once, waiting or worked on; further ones are refused with 429."""
    request_timeout: Annotated[float, Field(gt=0.0)] = 30.0
    """Seconds until a request is given up with 504."""
    body_timeout: Annotated[float, Field(gt=0.0)] = 10.0
    """Seconds in which a request's body has to arrive."""
    start_timeout: Seconds = 180.0
    """Seconds to wait for the endpoint to answer."""


def _alive(ctx: Context, endpoint: Endpoint) -> bool:
    """Whether the endpoint is there, under its name and with its version; told within some seconds.

    One that may sleep is not asked itself, which would wake it: Serve's proxy knows it, and it answers as the champion.
    """
    from raypath.components.registry.client import CHAMPION, held_by
    from raypath.components.serving.control.deployer import health, holds

    if not endpoint.sleeps and (found := health(endpoint.url)) is not None:
        return (found.get("name"), found.get("version")) == (endpoint.name, endpoint.version)
    if not ctx.tracking.uri or not holds(endpoint.url, endpoint.name):
        return False
    champion = held_by(ctx.tracking.uri, endpoint.name, CHAMPION)
    return champion is not None and champion[0] == endpoint.version


@component(version=1, alive=_alive)
def serve(ctx: Context, release: Release, params: ServeParams) -> Endpoint:
    """Put `release.serving` of `release.name` in service and return once it answers.

    The endpoint's metrics are `ready_seconds` and `request_ms`, the median of five warm requests of the task's probe.
    It asks for a key of `ctx.access`. Raises UserError for an open one beyond this machine, PlatformError when the port
    is taken, Serve cannot start the model, or a replica refuses it (the champion before then has the alias again),
    Unavailable when it stays silent.
    """
    from raypath.components.models.base_models import read_card
    from raypath.components.registry import cache
    from raypath.components.registry import client as registry
    from raypath.components.serving.control import deployer as deploy
    from raypath.components.serving.control import rollout
    from raypath.components.tasks import task_type

    check_scale(params)
    if given := os.environ.get("RAYPATH_ENDPOINT", "").rstrip("/"):
        return _elsewhere(ctx, release, params, given)
    base = (ctx.serve_url or deploy.DEFAULT_URL).rstrip("/")
    for address in filter(None, (base, ctx.public_url)):
        deploy.check_open(address, _access(ctx, params))
    began = time.monotonic()
    # Into this machine's cache: a replica here then starts without MLflow, even while that is away.
    wanted = f"models:/{release.name}/{release.serving}"
    card = read_card(registry.resolve(ctx.tracking.uri, wanted, cache.cache_folder())[2])
    ctx.report(1, 3, "starting Ray Serve")
    # Replicas keep request_timeout by themselves; in the proxy a request may have to wait for a first one to start.
    deploy.start(base, params.request_timeout + params.start_timeout)
    route = deploy.free_route(base, release.name, params.route)
    url = base + route.rstrip("/")
    ctx.report(2, 3, "waiting for the endpoint")
    rollout.put([_spec(ctx, release, card, params, base, route)], release.name, release.serving, params.start_timeout)
    ready = time.monotonic() - began
    metrics = {"ready_seconds": ready, "request_ms": _request_ms(ctx, url, params, task_type(card.task).probe)}
    return _endpoint(ctx, release, params, url, metrics)


def _elsewhere(ctx: Context, release: Release, params: ServeParams, url: str) -> Endpoint:
    """Wait for an endpoint that follows the registry by itself (a RayService). Raises PlatformError, Unavailable."""
    from raypath.components.serving.control.deployer import await_follower

    ctx.report(1, 2, "waiting for the endpoint")
    ready = await_follower(url, ctx.tracking.uri, release.name, release.serving, params.start_timeout)
    return _endpoint(ctx, release, params, url, {"ready_seconds": ready})


def _endpoint(ctx: Context, release: Release, params: ServeParams, url: str, metrics: dict[str, float]) -> Endpoint:
    ctx.track.metrics(metrics)
    (ctx.out / "endpoint.json").write_text(json.dumps({"url": url, "name": release.name, "version": release.serving}))
    sleeps = params.replicas == 0
    return Endpoint(url=url, name=release.name, version=release.serving, sleeps=sleeps, metrics=metrics)


def check_scale(params: ServeParams) -> None:
    """Raise ParamsError for a number of replicas that cannot be."""
    most = params.max_replicas or params.replicas
    if most < max(params.replicas, 1):
        fix = "set max_replicas to as many, and replicas=0 only with max_replicas"
        raise ParamsError(f"replicas={params.replicas} with max_replicas={params.max_replicas}", fix=fix)


def _access(ctx: Context, params: ServeParams) -> str:
    """The folder of the keys, "" for an endpoint that asks for none."""
    return "" if params.open or ctx.access is None else str(ctx.access)


def _spec(ctx: Context, release: Release, card: Card, params: ServeParams, base: str, route: str) -> Spec:
    kept = str(ctx.predictions / release.name) if params.log_predictions and ctx.predictions else ""
    return spec_of(
        params, card, name=release.name, tracking=ctx.tracking.uri, base=base, route=route, cores=ctx.workers,
        access=_access(ctx, params), predictions=kept, where=ctx.selector,
    )  # fmt: skip


def spec_of(
    params: ServeParams,
    card: Card,
    *,
    name: str,
    tracking: str,
    base: str,
    route: str,
    cores: int,
    access: str,
    predictions: str = "",
    usage: str = "",
    follow: float = 0.0,
    where: Mapping[str, str] | None = None,
) -> Spec:
    """What replicas are told for these settings; the same on a laptop and in a RayService. cores: of the machine.

    where: labels of the nodes that replicas may run on; none for any.
    """
    from raypath.components.serving.api.body import Limits
    from raypath.components.serving.control.ray_options import options
    from raypath.components.serving.spec import Spec

    limits = Limits(
        items=params.max_items,
        characters=params.max_characters,
        body=params.max_body,
        seconds=params.request_timeout,
        batch=params.batch,
        patience=params.patience,
        arrival=params.body_timeout,
    )
    return Spec(
        name=name,
        task=card.task,
        label_kind=card.label_kind,
        tracking=tracking,
        url=base + route.rstrip("/"),
        route=route,
        threads=params.threads or max(1, cores // max(params.replicas, params.max_replicas, 1)),
        limits=limits,
        access=access,
        usage=usage,
        follow=follow,
        canary=params.canary or "",
        shadow=params.shadow or "",
        also=params.also,
        log_requests=params.log_requests,
        predictions=predictions,
        share=params.log_predictions,
        texts=params.log_texts,
        options=options(params, where or {}),
    )


def _request_ms(ctx: Context, url: str, params: ServeParams, probe: dict[str, Any]) -> float:
    from raypath.components.serving.control.deployer import predict
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
