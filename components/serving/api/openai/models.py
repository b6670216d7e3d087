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


class ModelList(BaseModel):
    """Served models, the main one first."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


def routes(service: BaseModelService) -> APIRouter:
    """Build the routes of a service."""
    router, began = APIRouter(prefix="/v1", tags=["OpenAI"]), int(time.time())

    @router.get("/models")
    async def models() -> ModelList:
        return ModelList(data=[ModelEntry(id=name, created=began) for name in service.model_names()])

    @router.get("/models/{model}", responses=error_responses(404, 422))
    async def model(model: str) -> ModelEntry:
        if model not in service.model_names():
            raise HTTPException(404, f"no such model; served models: {', '.join(service.model_names())}")
        return ModelEntry(id=model, created=began)

    return router
