"""Put the Serve application up, tell it what to hold, and ask whether it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raypath.components.core.errors import UserError
from raypath.components.serving.control.proxy import _ROUTE, write_request_limit
from raypath.components.serving.replica_plan import plan_of

if TYPE_CHECKING:
    from raypath.components.serving.spec import EndpointSpec

_SPECS = b"raypath-specs"


def deploy(spec: EndpointSpec, version: int) -> float:
    """Deploy or update the application `spec.name`; returns before it answers, with the time of its ReplicaPlan.

    Where only the version differs from what runs, the replicas swap it in place; otherwise new ones come up beside
    the old ones first. Raises UserError when the route belongs to another application.
    """
    from ray import serve
    from ray.experimental import internal_kv
    from ray.serve.exceptions import RayServeException

    from raypath.components.serving.control.ray_options import code_version
    from raypath.components.serving.replica import deployment as app

    service: Any = app.Service
    plan = plan_of(spec, version)
    most = int(spec.options["max_ongoing_requests"])
    write_request_limit(spec.name, most)
    # Without a version of its own Serve would take every deployment for new code and replace the replicas. It does so
    # for another limit: only with other replicas HAProxy's configuration is made anew.
    deployment = service.options(version=f"{code_version()}-{most}", _internal=True)
    deployment = deployment.options(name="model", user_config=plan.model_dump(), **spec.options)
    try:
        targets = [serve.RunTarget(deployment.bind(spec.model_dump()), name=spec.name, route_prefix=spec.route)]
        serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    except RayServeException as error:
        reason = str(getattr(error, "cause", None) or error).splitlines()[0]
        raise UserError(f"{spec.name} cannot be served at {spec.route} ({reason})", fix=_ROUTE) from None
    # Where a promotion finds it that is to wake no replica.
    internal_kv._internal_kv_put(spec.name.encode(), spec.model_dump_json().encode(), namespace=_SPECS)
    return plan.asked


def deployed_spec(application: str) -> EndpointSpec | None:
    """With which an application was deployed last; None for one that is not ours."""
    from ray.experimental import internal_kv

    from raypath.components.serving.spec import EndpointSpec

    found = internal_kv._internal_kv_get(application.encode(), namespace=_SPECS)
    return EndpointSpec.model_validate_json(found) if found else None
