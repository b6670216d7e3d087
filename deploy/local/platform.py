"""Platform of this machine: steps run as Ray tasks on the home's own Ray head, with its own MLflow server."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from raypath.components.core.params import AUTO, Params
from raypath.components.core.uris import absolute
from raypath.components.models import bf16
from raypath.components.tracking import login
from raypath.deploy.execution.ray_platform import RayTaskPlatform
from raypath.deploy.execution.step import StepSpec, load_component
from raypath.deploy.local import processes
from raypath.deploy.local import services as local
from raypath.deploy.local import state as services
from raypath.deploy.local.ray_connection import connection
from raypath.deploy.local.state import Services


class LocalPlatform(RayTaskPlatform):
    """Platform that starts its services when the first step is submitted."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._services: Services | None = None

    def mlflow(self) -> str:
        """Return the URL of the home's MLflow server, which may still be starting."""
        known = self._services or services.read(self.home)
        if known.mlflow is None:
            return ""
        # Before a step is submitted nothing is started, and the registry is asked whether its versions still exist.
        login.remember(known.mlflow.address, services.mlflow_secret(self.home))
        return known.mlflow.address

    def serve_url(self) -> str:
        """Return the URL of local endpoints."""
        known = self._services or services.read(self.home)
        return f"http://127.0.0.1:{known.ray.serve_port}" if known.ray else ""

    def public_url(self) -> str:
        """Return the URL of the endpoints for other machines, "" when there is none."""
        return (self._services or services.read(self.home)).public

    def start(self) -> None:
        """Start Ray and, without waiting for it, MLflow."""
        if self._remote is not None:
            return
        self._services = local.up(self.home, wait=False, dashboard=False)
        connection.connect(self.home)
        self.connected()
        self.worker_environment = self._differences()

    def heal(self) -> None:
        """Restart services that have died and wait until they respond."""
        self._services = local.up(self.home, dashboard=False)
        connection.connect(self.home)

    def _differences(self) -> dict[str, str]:
        """Return the variables that change results and differ from those of the Ray head, which workers inherit."""
        service = services.read(self.home).ray
        head = processes.find(service) if service is not None else None
        there = head.environ().get(bf16.VARIABLE, "") if head is not None else ""
        here = os.environ.get(bf16.VARIABLE, "")
        return {} if there == here else {bf16.VARIABLE: here}

    def submit(self, spec: StepSpec) -> Any:
        """Start a step, with relative paths in its settings resolved here: workers have another current folder."""
        kinds = [argument.kind for argument in load_component(spec.component).arguments]
        found = [_absolute(kind, value) for kind, value in zip(kinds, spec.arguments, strict=True)]
        return super().submit(dataclasses.replace(spec, arguments=found))


def _absolute(kind: type, value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is None or not issubclass(kind, Params):
        return value
    given = {name: value[name] for name in kind.source_fields() if value[name] not in (None, "", AUTO)}
    return {**value, **{name: absolute(uri) for name, uri in given.items()}}
