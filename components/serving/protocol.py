"""The interface that the HTTP routes need of a replica, so that they do not import its deployment class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from raypath.components.serving.spec import EndpointSpec

if TYPE_CHECKING:
    import numpy as np

    from raypath.components.serving.metering.usage import Usage
    from raypath.components.serving.model_versions import LoadedModel


class Health(BaseModel):
    """What /healthz answers."""

    name: str
    version: int
    status: str
    """ok, or why the version that was asked for is not the one in service."""
    canary: str | None = None
    """Which version answers how much, or why none does."""
    shadow: str | None = None
    """Which version is compared, and how it compares."""


class ModelService(Protocol):
    """A replica as the routes see it. `Service` in replica/deployment.py implements it."""

    spec: EndpointSpec

    def health(self) -> Health:
        """Return name, version and status of the main model."""
        ...

    def names(self) -> list[str]:
        """Return the models that may be requested, the main one first."""
        ...

    async def pick(self, name: str | None = None, version: int = 0, steady: bool = False) -> LoadedModel:
        """Return the model version for a request; raises HTTP 404 or 503."""
        ...

    async def answer(self, model: LoadedModel, texts: list[str], usage: Usage | None = None) -> BaseModel:
        """Return the task's response, one prediction a text."""
        ...

    async def decoded(self, model: LoadedModel, texts: list[str], usage: Usage | None = None) -> np.ndarray[Any, Any]:
        """Return what the task decodes of each text, [N, K]."""
        ...

    async def recorded(
        self, model: LoadedModel, texts: list[str], usage: Usage | None = None, engine: Any = None
    ) -> np.ndarray[Any, Any]:
        """Return the model's raw outputs for each text, [N, outputs]."""
        ...
