"""Interface that the HTTP routes need of a replica, so that they do not import the deployment class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from raypath.components.serving.spec import EndpointSpec

if TYPE_CHECKING:
    import numpy as np

    from raypath.components.serving.metering.usage import Usage
    from raypath.components.serving.model_versions import LoadedModel


class Health(BaseModel):
    """Response of /healthz."""

    name: str
    version: int
    status: str
    """ok, or degraded with the versions that are not in service."""
    canary: str | None = None
    """Version and share of the canary."""
    shadow: str | None = None
    """Version and agreement of the shadow."""


class ModelService(Protocol):
    """A replica as the routes see it. `Service` in replica/deployment.py implements it."""

    spec: EndpointSpec

    def health(self) -> Health:
        """Return name, version and status of the main model."""
        ...

    def model_names(self) -> list[str]:
        """Return the names of the served models that the current request may use, the main one first."""
        ...

    async def select_model(self, name: str | None = None, version: int = 0, stable: bool = False) -> LoadedModel:
        """Return the model version for a request; raises HTTP 403, 404 or 503."""
        ...

    async def predict(self, model: LoadedModel, texts: list[str], usage: Usage | None = None) -> BaseModel:
        """Return the task's response, one prediction per text."""
        ...

    async def decode(self, model: LoadedModel, texts: list[str], usage: Usage | None = None) -> np.ndarray[Any, Any]:
        """Return the task's decoded outputs, [N, K]."""
        ...

    async def infer(
        self, model: LoadedModel, texts: list[str], usage: Usage | None = None, engine: Any = None
    ) -> np.ndarray[Any, Any]:
        """Return the model's raw outputs, [N, outputs]."""
        ...
