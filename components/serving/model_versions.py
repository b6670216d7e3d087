"""Data classes of model versions in a replica: requested, loaded, failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from raypath.components.data.tokenizer import Tokenizer
from raypath.components.inference.engine import Engine
from raypath.components.models.metadata import ModelMetadata
from raypath.components.tasks.base import Task

OTHER = "model "
"""What the role of another model begins with, before its name."""


class ModelVersion(BaseModel):
    """A version; source is `models:/m-...` as the registry has it, version 0 the champion of the moment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = 0
    source: str = ""


class ReplicaPlan(BaseModel):
    """What a replica is told to hold: Serve's user_config, which changes without replacing the replicas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    main: ModelVersion
    before: ModelVersion | None = None
    """What to fall back to where `main` is refused and nothing is in service yet."""
    canary: ModelVersion | None = None
    percent: float = 0.0
    """Of requests that the canary answers."""
    shadow: ModelVersion | None = None
    """Asked too, when nothing else waits; compared, never returned."""
    also: tuple[ModelVersion, ...] = ()
    """Other models, loaded when they are first asked for."""
    asked: float = 0.0
    """When this was asked for, so that asking again tries again."""


class LoadFault(BaseModel):
    """Why what was asked for is not in service."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    reason: str
    rejected: bool = True
    """False: it could not be fetched now, which says nothing of the version; it is tried again."""

    def message(self) -> str:
        """Return the reason in one line."""
        return f"version {self.version} cannot be loaded: {self.reason}"


@dataclass(frozen=True)
class LoadedModel:
    """One version, ready to answer."""

    name: str
    version: int
    folder: Path
    metadata: ModelMetadata
    task: Task
    tokenizer: Tokenizer
    engine: Engine
