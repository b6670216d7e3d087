"""OpenAI-compatible list of models: GET /v1/models, GET /v1/models/NAME."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from raypath.components.serving.api.openapi import error_responses

if TYPE_CHECKING:
    from raypath.components.serving.protocol import BaseModelService


class ModelEntry(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Start of this replica, in Unix time."""
    owned_by: str = "raypath"
    parent: str | None = None
    """Base model of an adapter, or of a model that was trained in full, as far as it is known."""


class ModelList(BaseModel):
    """Served models, the main one first."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


def routes(service: BaseModelService) -> APIRouter:
    """Build the routes of a service."""
    router, began = APIRouter(prefix="/v1", tags=["OpenAI"]), int(time.time())

    def entry(name: str) -> ModelEntry:
        return ModelEntry(id=name, created=began, parent=service.parent(name))

    @router.get("/models")
    async def models() -> ModelList:
        return ModelList(
            data=[ModelEntry(id=name, created=began, parent=service.parent(name)) for name in service.model_names()]
        )

    @router.get("/models/{model}", responses=error_responses(404, 422))
    async def model(model: str) -> ModelEntry:
        if model not in service.model_names():
            raise HTTPException(404, f"no such model; served models: {', '.join(service.model_names())}")
        return entry(model)

    return router
