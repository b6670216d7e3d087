"""Model versions of a replica: planned, loaded, failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:  # an engine imports PyTorch, which commands that ask for the status of replicas do not need
    from raypath.components.data.tokenization.tokenizer import Tokenizer
    from raypath.components.inference.engine import Engine
    from raypath.components.inference.generation.async_engine import AsyncEngine
    from raypath.components.inference.generation.selection.shared_bases import AdapterEngine
    from raypath.components.models.chat_template import ChatTemplate
    from raypath.components.models.metadata import ModelMetadata
    from raypath.components.serving.observability.request_context import RequestContext
    from raypath.components.tasks.base import Task


class Role(StrEnum):
    """Role of a version of the main model in a replica."""

    MAIN = "main"
    CANARY = "canary"
    SHADOW = "shadow"


class ModelVersion(BaseModel):
    """A registered version. `source` is its `models:/m-...` URI; version 0 is the current champion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = 0
    source: str = ""
    tags: dict[str, str] = {}
    """Its tags in the registry, with the signed records of its contents and its promotion."""


class ReplicaPlan(BaseModel):
    """Versions that a replica loads. It is Serve's user_config, which changes without replacing the replicas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    main: ModelVersion
    fallback: ModelVersion | None = None
    """Loaded if `main` is rejected and no version is in service yet."""
    canary: ModelVersion | None = None
    canary_percent: float = 0.0
    """Share of requests served by the canary."""
    shadow: ModelVersion | None = None
    extra_models: tuple[ModelVersion, ...] = ()
    """Additional models, loaded on first request."""
    requested_at: float = 0.0
    """Unix time of a rollout. It makes a repeated rollout of a version a new plan, so that loading is retried."""

    def version(self, role: Role) -> ModelVersion | None:
        """Return the planned version of a role."""
        return {Role.MAIN: self.main, Role.CANARY: self.canary, Role.SHADOW: self.shadow}[role]


class LoadFault(BaseModel):
    """Reason why a planned version is not in service."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    reason: str
    rejected: bool = True
    """False if the version could not be fetched, which is retried and says nothing about the version itself."""

    def message(self) -> str:
        """Return the version and the reason in one line."""
        return f"version {self.version} cannot be loaded: {self.reason}"


@dataclass(frozen=True)
class ServedVersion:
    """A loaded version of any kind."""

    name: str
    version: int
    folder: Path
    metadata: ModelMetadata
    task: Task

    @property
    def precision(self) -> str:
        """Precision of inference."""
        raise NotImplementedError


@dataclass(frozen=True)
class LoadedModel(ServedVersion):
    """A loaded version that predicts, ready for inference."""

    tokenizer: Tokenizer
    engine: Engine

    @property
    def precision(self) -> str:
        """Precision of inference, such as bf16."""
        return self.engine.precision


@dataclass(frozen=True)
class Pace:
    """Speed of a model that answers one request: tokens a second of its prompt, and of its response."""

    prompt: float
    response: float


class ResponseInProgress(Protocol):
    """Response of a language model that is not complete."""

    @property
    def is_waiting(self) -> bool:
        """True before the first token."""
        ...

    @property
    def waiting_tokens(self) -> int:
        """Tokens that it waits for."""
        ...


@dataclass(frozen=True)
class LoadedLanguageModel(ServedVersion):
    """A loaded version that generates text, with an engine of its own, or as an adapter in one that others share."""

    template: ChatTemplate
    engine: AsyncEngine | AdapterEngine
    pace: Pace
    users: list[ResponseInProgress] = field(default_factory=list)
    """Responses in progress."""
    requests: WeakSet[RequestContext] = field(default_factory=WeakSet)
    """Requests that have selected the version: it is closed when it is out of service and has neither."""

    @property
    def precision(self) -> str:
        """Precision of inference, such as bf16."""
        return self.engine.engine.precision
