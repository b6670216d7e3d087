"""Deploy or update the Ray Serve application of an endpoint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from raypath.components.core.errors import UserError
from raypath.components.serving.control.proxy import ROUTE_FIX, write_request_limits

if TYPE_CHECKING:
    from raypath.components.serving.live.watcher import Swap
    from raypath.components.serving.model_versions import ReplicaPlan
    from raypath.components.serving.spec import EndpointSpec


def deploy(spec: EndpointSpec, plan: ReplicaPlan, swap: Swap) -> None:
    """Deploy or update the application `spec.name`; returns before it is ready.

    If only the plan differs from the running deployment, the replicas swap versions in place; otherwise new replicas
    start before the old ones stop.

    swap: Called by a replica, to put another version in service when live requests have decided on it.

    Raises UserError when the route belongs to another application.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from raypath.components.serving.control.ray_options import code_version
    from raypath.components.serving.control.spec_store import save_spec
    from raypath.components.serving.replica.kinds import deployment_of

    service: Any = deployment_of(spec)
    most = int(spec.options["max_ongoing_requests"])
    body_seconds = math.ceil(spec.serve.body_timeout)
    write_request_limits(spec.name, most, body_seconds)
    # Without an explicit version, Serve takes every deployment for new code and replaces the replicas. It has to do so
    # for other request limits: HAProxy's configuration is written again only with new replicas.
    deployment = service.options(version=f"{code_version()}-{most}-{body_seconds}", _internal=True)
    deployment = deployment.options(name="model", user_config=plan.model_dump(), **spec.options)
    try:
        targets = [serve.RunTarget(deployment.bind(spec.model_dump(), swap), name=spec.name, route_prefix=spec.route)]
        serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    except RayServeException as error:
        reason = str(getattr(error, "cause", None) or error).splitlines()[0]
        raise UserError(f"{spec.name} cannot be served at {spec.route} ({reason})", fix=ROUTE_FIX) from None
    save_spec(spec)
