"""The spec of an endpoint from its settings and a release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raypath.components.core.errors import ParamsError
from raypath.components.serving.params import ServeParams

if TYPE_CHECKING:
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.serving.spec import EndpointSpec


def check_scale(params: ServeParams) -> None:
    """Raise ParamsError for a number of replicas that cannot be."""
    most = params.max_replicas or params.replicas
    if most < max(params.replicas, 1):
        fix = "set max_replicas to as many, and replicas=0 only with max_replicas"
        raise ParamsError(f"replicas={params.replicas} with max_replicas={params.max_replicas}", fix=fix)


def spec_of(
    params: ServeParams,
    metadata: ModelMetadata,
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
) -> EndpointSpec:
    """What replicas are told for these settings; the same on a laptop and in a RayService. cores: of the machine.

    where: labels of the nodes that replicas may run on; none for any.
    """
    from raypath.components.serving.control.ray_options import options
    from raypath.components.serving.spec import EndpointSpec, Limits

    limits = Limits(
        items=params.max_items,
        characters=params.max_characters,
        body=params.max_body,
        seconds=params.request_timeout,
        batch=params.batch,
        max_queue_seconds=params.max_queue_seconds,
        arrival=params.body_timeout,
    )
    return EndpointSpec(
        name=name,
        task=metadata.task,
        label_kind=metadata.label_kind,
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
