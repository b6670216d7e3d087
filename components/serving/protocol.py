"""Interface that the HTTP routes need of a replica, so that they do not import the deployment class."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel

from raypath.components.serving.spec import EndpointSpec

if TYPE_CHECKING:
    import numpy as np

    from raypath.components.inference.generation.engine import SamplingSettings
    from raypath.components.inference.generation.streaming_engine import Piece
    from raypath.components.serving.metering.usage import Usage
    from raypath.components.serving.model_versions import LoadedLanguageModel, LoadedModel, ServedVersion

T = TypeVar("T")


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


class BaseModelService(Protocol):
    """A replica of any kind of model, as the routes see it."""

    spec: EndpointSpec

    def health(self) -> Health:
        """Return name, version and status of the main model."""
        ...

    def model_names(self) -> list[str]:
        """Return the names of the served models that the current request may use, the main one first."""
        ...

    def parent(self, name: str) -> str | None:
        """Return the base of a served model, None where it is not known."""
        ...


class AnyModelService(BaseModelService, Protocol):
    """A replica whose loaded versions are of any kind."""

    async def select_model(self, name: str | None = None, version: int = 0, stable: bool = False) -> ServedVersion:
        """Return the model version for a request; raises HTTP 403, 404 or 503."""
        ...


class LanguageModelService(BaseModelService, Protocol):
    """A replica of language models. `LanguageService` in replica/language/deployment.py implements it."""

    async def select_model(
        self, name: str | None = None, version: int = 0, stable: bool = False
    ) -> LoadedLanguageModel:
        """Return the model version for a request; raises HTTP 403, 404 or 503."""
        ...

    async def prepare(self, size: int, work: Callable[[], T]) -> T:
        """Run a function that renders and tokenizes `size` characters; raises QueueFull."""
        ...

    def generate(
        self,
        model: LoadedLanguageModel,
        prompt: Sequence[int],
        settings: SamplingSettings,
        usage: Usage,
        counted: int | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of a response, and fill in `usage`; closing it aborts the response.

        counted: tokens of the prompt that count as used; None for all. Raises QueueFull, HTTP 504 on timeout, 400
        for a request that the engine does not take, 503 where the engine failed.
        """
        ...


class ModelService(BaseModelService, Protocol):
    """A replica of a model that predicts. `Service` in replica/deployment.py implements it."""

    async def select_model(self, name: str | None = None, version: int = 0, stable: bool = False) -> LoadedModel:
        """Return the model version for a request; raises HTTP 403, 404 or 503."""
        ...

    async def read_texts(self, model: LoadedModel, size: int, work: Callable[[], T]) -> T:
        """Return what `work` reads of a request of `size` bytes, and redacts if the model's training data was."""
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
