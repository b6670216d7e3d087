"""Routes that every kind of service has: health, model card, pages."""

from __future__ import annotations

from collections import Counter

from fastapi import FastAPI, Response

from raypath.components.serving.api import errors as problems
from raypath.components.serving.api.model_card import ModelCard, card_of
from raypath.components.serving.api.openapi import error_responses
from raypath.components.serving.api.pages.pages import chat_page, docs, page
from raypath.components.serving.middleware.head import HeadMiddleware
from raypath.components.serving.protocol import AnyModelService, BaseModelService, Health


def new_api(service: BaseModelService, about: str) -> FastAPI:
    """Return an application with the errors of all services and /healthz."""
    api = FastAPI(
        title=f"Raypath: {service.spec.name}",
        description=about,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    api.state.arriving = Counter()  # request bodies that are being read, by key or client
    api.add_middleware(HeadMiddleware)
    problems.add_error_handlers(api)

    @api.get("/healthz", response_model_exclude_none=True)
    async def healthz() -> Health:
        """Name, version and status of the main model."""
        return service.health()

    return api


def add_card(api: FastAPI, service: AnyModelService) -> None:
    """Add the routes of the model card."""

    @api.get("/card")
    async def card() -> ModelCard:
        """Task, labels, base model and metrics of the model."""
        return card_of(await service.select_model(stable=True), service.spec.serve.encrypted)

    @api.get("/models/{name}/card", responses=error_responses(404, 422, 503))
    async def card_of_additional(name: str) -> ModelCard:
        """Model card of an additional model."""
        return card_of(await service.select_model(name, stable=True), service.spec.serve.encrypted)


def add_pages(api: FastAPI, name: str, chat: bool = False) -> None:
    """Add the pages for a person. name: of the model."""

    @api.get("/", include_in_schema=False)
    async def index() -> Response:
        return chat_page(name) if chat else page(name)

    # FastAPI's own page loads scripts from other hosts.
    @api.get("/docs", include_in_schema=False)
    async def interface() -> Response:
        return docs(name)
