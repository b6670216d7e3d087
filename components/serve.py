"""Serve the champion of a registered model over HTTP with Ray Serve.

The served version is `release.serving`: the champion, which is the older version if the new one was not better. If only
the version changed, the replicas load it next to the old one and swap, without a rejected request.
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
from raypath.components.core.errors import Unavailable, UserError
from raypath.components.serving.params import (
    ServeParams,
    check_decide,
    check_encrypted,
    check_language,
    check_scale,
    with_threads,
)

if TYPE_CHECKING:
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.serving.spec import EndpointSpec

SMOKE_TESTS = 5
PREDICT, CHAT = "/predict", "/v1/chat/completions"
"""Main routes of models that predict, and of language models."""


def _alive(ctx: Context, endpoint: Endpoint) -> bool:
    """Return True if the endpoint serves its model and version.

    An endpoint that may be scaled to zero is not queried, which would start a replica: its route has to be known to
    Serve's proxy, and its version has to be the champion, which no replica has rejected. Any other one has to respond:
    503 means that no replica could load its model.
    """
    from raypath.components.registry.aliases import alias_target, rejection_reason
    from raypath.components.registry.tags import CHAMPION
    from raypath.components.serving.control.client import serves_version
    from raypath.components.serving.control.proxy import has_route

    if not endpoint.scales_to_zero:
        return serves_version(endpoint.url, endpoint.name, endpoint.version)
    if not ctx.tracking.uri or not has_route(endpoint.url, endpoint.name):
        return False
    champion = alias_target(ctx.tracking.uri, endpoint.name, CHAMPION)
    if champion is None or champion[0] != endpoint.version:
        return False
    return not rejection_reason(ctx.tracking.uri, endpoint.name, endpoint.version)


@component(version=1, alive=_alive)
def serve(ctx: Context, release: Release, params: ServeParams) -> Endpoint:
    """Deploy `release.serving` of `release.name` and return once the endpoint is ready.

    The endpoint's metrics are `ready_seconds` and `request_ms`, the median latency of five smoke-test requests after
    warm-up. API keys are those of `ctx.api_keys`.

    Raises UserError for a model without a champion, and for an endpoint that other machines could reach without a key,
    PlatformError if the port is in use, Serve cannot start the model, or a replica rejects it (the previous champion is
    then restored), Unavailable if it is not ready in time.
    """
    from raypath.components.models.metadata import read_metadata
    from raypath.components.registry import cache
    from raypath.components.registry import client as registry
    from raypath.components.serving.control import proxy, rollout
    from raypath.components.tasks.catalog import check_served, check_task, task_type

    check_scale(params)
    check_decide(params)
    check_encrypted(params)
    _check_champion(release)
    if given := os.environ.get("RAYPATH_ENDPOINT", "").rstrip("/"):
        return _wait_for_external(ctx, release, params, given)
    base = (ctx.serve_url or proxy.DEFAULT_URL).rstrip("/")
    for url in filter(None, (base, ctx.public_url)):
        proxy.check_public_access(url, _access(ctx, params))
    began = time.monotonic()
    # Fetched into this machine's cache: a replica here then starts even while MLflow is unavailable.
    source = f"models:/{release.name}/{release.serving}"
    fetched = registry.resolve(ctx.tracking.uri, source, cache.cache_folder(ctx.signing), ctx.signing, promoted=True)
    metadata = read_metadata(fetched[2])
    check_task(metadata, _tasks(release, params))
    check_served(metadata)
    if task_type(metadata.task, metadata.label_kind).generates_text:
        check_language(params)
    ctx.report(1, 3, "starting Ray Serve")
    # Replicas enforce request_timeout; in the proxy a request may also wait for a cold start.
    proxy.start(base, params.request_timeout + params.start_timeout)
    route = proxy.choose_route(base, release.name, params.route)
    spec = _spec(ctx, release, metadata, params, base, route)
    ctx.report(2, 3, "waiting for the endpoint")
    _permit(ctx, release, params)
    rollout.roll_out([spec], release.name, release.serving, params.start_timeout)
    ready = time.monotonic() - began
    path, request, example = _example(release, metadata)
    latency = _request_ms(ctx, spec.url + path, params, request)
    metrics = {"ready_seconds": ready, "request_ms": latency}
    return _endpoint(ctx, release, params, spec.url, metrics, path, example)


def _check_champion(release: Release) -> None:
    """Raise UserError if no version is in service, nor may be."""
    if not release.serving:
        what = f"{release.name} has no champion to serve; of version {release.version}: {release.reason}"
        raise UserError(what, fix=f"improve the model, or run `raypath promote {release.name} {release.version}`")


def _example(release: Release, metadata: ModelMetadata) -> tuple[str, dict[str, Any], str]:
    """Return the path of the main route, a request for the smoke test, and as JSON one for a person, "" if obvious."""
    from raypath.components.core.columns import is_single_text
    from raypath.components.tasks.catalog import task_type
    from raypath.components.tasks.schemas import example_request

    task = task_type(metadata.task, metadata.label_kind)
    if task.generates_text:
        request = {"model": release.name, "messages": [{"role": "user", "content": "Hello!"}]}
        return CHAT, request | {"max_tokens": 1, "temperature": 0}, json.dumps(request)
    request = example_request(task.example_request, metadata.columns)
    single = is_single_text(metadata.columns)
    return PREDICT, request, "" if single else json.dumps(request, ensure_ascii=False)


def _wait_for_external(ctx: Context, release: Release, params: ServeParams, url: str) -> Endpoint:
    """Wait for an endpoint that follows the registry (a RayService). Raises PlatformError, Unavailable."""
    from raypath.components.serving.control.rollout import wait_for_version

    ctx.report(1, 2, "waiting for the endpoint")
    _permit(ctx, release, params)
    ready = wait_for_version(url, ctx.tracking.uri, release.name, release.serving, params.start_timeout)
    return _endpoint(ctx, release, params, url, {"ready_seconds": ready})


def _permit(ctx: Context, release: Release, params: ServeParams) -> None:
    """Permit live requests to promote the release, if it is the challenger and the test rows speak for it."""
    from raypath.components.registry.client import mlflow_client, read_aliases
    from raypath.components.registry.live import permit

    if not params.decide or release.version == release.serving:
        return
    with mlflow_client(ctx.tracking.uri) as client:
        aliases = read_aliases(client, release.name)
        tested = {(params.canary or "").partition(":")[0], params.shadow or ""}
        if release.version not in {aliases.get(alias) for alias in tested}:
            return
        if release.chance < params.decide_chance:
            ctx.log.warning(
                "live requests do not decide on version %s: its chance of being better on the test rows is %.0f%%, "
                "wanted %.0f%% (serve.decide_chance)",
                release.version,
                100 * release.chance,
                100 * params.decide_chance,
            )
            return
        permit(client, ctx.tracking.experiment, release.name, release.version, release.serving, ctx.signing)


def _endpoint(
    ctx: Context,
    release: Release,
    params: ServeParams,
    url: str,
    metrics: dict[str, float],
    path: str = "",
    example: str = "",
) -> Endpoint:
    ctx.track.metrics(metrics)
    (ctx.out / "endpoint.json").write_text(json.dumps({"url": url, "name": release.name, "version": release.serving}))
    return Endpoint(
        url=url,
        name=release.name,
        version=release.serving,
        scales_to_zero=params.replicas == 0,
        example=example,
        path=path or _main_route(release),
        metrics=metrics,
    )


def _main_route(release: Release) -> str:
    """Return the main route by the release's task, where the version's metadata is not at hand."""
    from raypath.components.tasks.catalog import task_type

    return CHAT if release.task and task_type(release.task).generates_text else PREDICT


def _access(ctx: Context, params: ServeParams) -> str:
    """Return the folder of the API keys, "" for an endpoint without authentication."""
    return "" if params.open or ctx.api_keys is None else str(ctx.api_keys)


def _tasks(release: Release, params: ServeParams) -> tuple[str, ...]:
    """Return the tasks that models of the endpoint may name: the workflow's own and those that the operator listed."""
    from raypath.components.tasks.catalog import listed_tasks

    own = [release.task] if ":" in release.task else []
    return tuple(dict.fromkeys([*own, *params.tasks, *listed_tasks()]))


def _spec(
    ctx: Context, release: Release, metadata: ModelMetadata, params: ServeParams, base: str, route: str
) -> EndpointSpec:
    from raypath.components.serving.control.ray_options import deployment_options
    from raypath.components.serving.spec import EndpointSpec
    from raypath.components.tasks.catalog import task_type

    logged = params.log_predictions and ctx.predictions
    return EndpointSpec(
        name=release.name,
        task=metadata.task,
        label_kind=metadata.label_kind,
        columns=metadata.columns,
        tasks=_tasks(release, params),
        signing=str(ctx.signing or ""),
        tracking=ctx.tracking.uri,
        url=base + route.rstrip("/"),
        route=route,
        serve=with_threads(params, ctx.workers),
        access=_access(ctx, params),
        predictions=str(ctx.predictions / release.name) if logged and ctx.predictions else "",
        options=deployment_options(params, ctx.selector, task_type(metadata.task, metadata.label_kind).generates_text),
    )


def _request_ms(ctx: Context, url: str, params: ServeParams, request: dict[str, Any]) -> float:
    from raypath.components.serving.control.client import request_json
    from raypath.components.serving.metering.api_keys import local_key

    access = _access(ctx, params)
    key = local_key(Path(access)).read_text(encoding="utf-8") if access else ""
    latencies, body = [], json.dumps(request).encode()
    for _ in range(SMOKE_TESTS):
        start = time.perf_counter()
        if request_json(url, body, params.request_timeout, key) is None:
            raise Unavailable(f"{url} is healthy but rejects a smoke-test request", fix="see the logs of Ray Serve")
        latencies.append((time.perf_counter() - start) * 1000)
    return statistics.median(latencies)
