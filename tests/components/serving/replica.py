"""A replica without Ray: the HTTP side and the batching are the real ones."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from raypath.components.core.artifacts import Model
from raypath.components.serving.params import ServeParams
from tests.components.serving.server import service_of

LIMITS = ServeParams(
    threads=1, max_items=50, max_characters=500, max_body=100_000, request_timeout=20.0, batch=8, max_queue_seconds=5.0
)


def api_of(model: Model, settings: ServeParams = LIMITS) -> FastAPI:
    """The application of a replica that has this model in service as version 1 of m."""
    from raypath.components.inference.dynamic_batching import Batcher
    from raypath.components.serving.api.routes import build_api
    from raypath.components.serving.middleware.request_limits import RequestLimitsMiddleware

    service = service_of({"m": model}, settings)
    real = service.infer

    async def infer(*args: Any, **kwargs: Any) -> Any:
        # A test client has a loop a request.
        service.batcher = Batcher(settings.batch, settings.max_queue_seconds, 2)
        try:
            return await real(*args, **kwargs)
        finally:
            service.batcher.close()

    service.infer = infer
    api = build_api(service)
    api.add_middleware(RequestLimitsMiddleware)
    return api
