"""The platform of a laptop: steps run as Ray tasks on this home's own head, beside its own MLflow server."""

from __future__ import annotations

from pathlib import Path

from raypath.deploy.execution.ray_platform import RayTaskPlatform
from raypath.deploy.local import services as local
from raypath.deploy.local import state as services
from raypath.deploy.local.state import Services


class LocalPlatform(RayTaskPlatform):
    """Starts nothing until a step is to be run."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._services: Services | None = None

    def mlflow(self) -> str:
        """This home's server, which may still be starting."""
        known = self._services or services.read(self.home)
        return known.mlflow.address if known.mlflow else ""

    def serve_url(self) -> str:
        """Where a local endpoint answers."""
        known = self._services or services.read(self.home)
        return f"http://127.0.0.1:{known.ray.serve_port}" if known.ray else ""

    def public_url(self) -> str:
        """Where it answers other machines, "" where it does not."""
        return (self._services or services.read(self.home)).public

    def start(self) -> None:
        """Bring up Ray and, without waiting for it, MLflow."""
        if self._remote is not None:
            return
        self._services = local.up(self.home, wait=False, dashboard=False)
        local.connect(self.home)
        self.connected()

    def heal(self) -> None:
        """Start again what has died, and wait until it answers."""
        self._services = local.up(self.home, dashboard=False)
        local.connect(self.home)
