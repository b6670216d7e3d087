"""Serve application of a RayService, `import_path: raypath.deploy.kubernetes.serve_app:build`. Arguments:

    name         registered model whose champion is served
    tracking     MLflow server; default $MLFLOW_TRACKING_URI
    access       folder with the API keys (keys.json and pepper), may be read-only
    usage        folder for usage metering
    predictions  folder for the predictions that `serve.log_predictions` records
    serve        settings of `raypath.components.serve`, as on a laptop

The application is DEPLOYING until the registry has a champion. Afterwards the replicas follow the alias themselves
(`raypath.components.serving.replica.registry_watcher`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, ParamsError, Unavailable
from raypath.components.core.params import Params, Seconds, flatten
from raypath.components.serving.params import ServeParams, check_decide, check_encrypted, check_language, check_scale

log = logging.getLogger("ray.serve")


class ServiceParams(Params):
    """Arguments of the application."""

    name: str = ""
    """Name of the registered model."""
    tracking: str = ""
    """URL of the MLflow server; none takes $MLFLOW_TRACKING_URI."""
    access: str = ""
    """Folder with the API keys."""
    usage: str = ""
    """Folder for usage metering; none takes one below `access`."""
    predictions: str = ""
    """Folder for recorded predictions; each model has a subfolder of its name."""
    poll_seconds: Seconds = 5.0
    """Seconds between two polls of the alias."""
    champion_timeout: Seconds = 0.0
    """Seconds to wait for a first champion; 0 waits without a limit."""
    serve: ServeParams = ServeParams()


def build(args: dict[str, Any]) -> Any:
    """Build the application. Raises ParamsError for invalid arguments, Unavailable without a champion in time."""
    params = ServiceParams().override(dict(flatten(args)))
    tracking = params.tracking or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not params.name or not tracking:
        raise ParamsError("a service needs a model and an MLflow server", fix="set name and $MLFLOW_TRACKING_URI")
    if params.serve.open:
        raise ParamsError("serve.open works on one machine only", fix="leave it unset; clients send a key")
    if not params.access:
        raise ParamsError("no folder with API keys is set", fix="set access")
    if params.serve.log_predictions and not params.predictions:
        raise ParamsError("serve.log_predictions has no folder", fix="set predictions")
    check_scale(params.serve)
    check_decide(params.serve)
    check_encrypted(params.serve)
    return _application(params, tracking)


def _application(params: ServiceParams, tracking: str) -> Any:
    from raypath.components.models.metadata import read_metadata
    from raypath.components.serving.control.ray_options import deployment_options
    from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan
    from raypath.components.serving.replica.kinds import deployment_of
    from raypath.components.serving.spec import EndpointSpec
    from raypath.components.tasks.catalog import check_task, listed_tasks, task_type

    metadata = read_metadata(_champion(params, tracking))
    tasks = (*params.serve.tasks, *listed_tasks())
    check_task(metadata, tasks)
    if task_type(metadata.task, metadata.label_kind).generates_text:
        check_language(params.serve)
    route = params.serve.route or "/"
    # Replicas share a node, so each one uses only the CPUs that it reserves.
    serve = params.serve.model_copy(update={"threads": params.serve.threads or max(1, int(params.serve.cpus))})
    spec = EndpointSpec(
        name=params.name,
        task=metadata.task,
        label_kind=metadata.label_kind,
        columns=metadata.columns,
        tasks=tasks,
        tracking=tracking,
        url="http://127.0.0.1:8000" + route.rstrip("/"),
        route=route,
        serve=serve,
        access=params.access,
        usage=params.usage,
        predictions=_predictions(params),
        poll_seconds=params.poll_seconds,
        options=deployment_options(params.serve, {}, task_type(metadata.task, metadata.label_kind).generates_text),
    )
    service: Any = deployment_of(spec)
    plan = ReplicaPlan(main=ModelVersion(name=params.name)).model_dump()
    deployment = service.options(name="model", user_config=plan, **spec.options)
    return deployment.bind(spec.model_dump())


def _predictions(params: ServiceParams) -> str:
    return str(Path(params.predictions) / params.name) if params.serve.log_predictions else ""


def _champion(params: ServiceParams, tracking: str) -> Path:
    """Wait for a champion and return its folder. Raises Unavailable after `champion_timeout`."""
    from raypath.components.registry import cache, tags
    from raypath.components.registry import client as registry

    began, logged = time.monotonic(), -60.0
    while True:
        try:
            return registry.resolve(tracking, f"models:/{params.name}@{tags.CHAMPION}", cache.cache_folder())[2]
        except (DataError, Unavailable) as error:
            passed = time.monotonic() - began
            if params.champion_timeout and passed > params.champion_timeout:
                raise Unavailable(f"{params.name} has no champion to serve ({error.what})", fix=error.fix) from None
            if passed - logged >= 60.0:
                log.warning("waiting for a champion of %s: %s", params.name, error.what)
                logged = passed
        time.sleep(min(params.poll_seconds or 5.0, 5.0))


def arguments(name: str, serve: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `build` for a manifest; of the serve settings those that differ from the defaults."""
    defaults = ServeParams().model_dump(mode="json")
    changed = {key: value for key, value in serve.items() if value != defaults[key]}
    # Usage metering and recorded predictions share the volume that every replica may write to.
    places = {"access": "/etc/raypath/access", "usage": "/usage", "predictions": "/usage/predictions"}
    return {"name": name, **places, "serve": changed}
