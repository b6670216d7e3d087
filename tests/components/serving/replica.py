"""A replica without Ray: the HTTP side and the batching are the real ones."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from raypath.components.core.artifacts import Model
from raypath.components.serving.spec import Limits
from tests.components.serving.server import service_of

LIMITS = Limits(items=50, characters=500, body=100_000, seconds=20.0, batch=8, max_queue_seconds=5.0)


def api_of(model: Model, limits: Limits = LIMITS) -> FastAPI:
    """The application of a replica that has this model in service as version 1 of m."""
    from raypath.components.inference.dynamic_batching import Batcher
    from raypath.components.serving.api.routes import build_api

    service = service_of({"m": model}, limits)
    real = service.recorded

    async def recorded(*args: Any, **kwargs: Any) -> Any:
        # A test client has a loop a request.
        service.batcher = Batcher(limits.batch, limits.max_queue_seconds, 2)
        try:
            return await real(*args, **kwargs)
        finally:
            service.batcher.close()

    service.recorded = recorded
    return build_api(service)
