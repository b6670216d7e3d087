"""The HTTP side of a service: what it answers, and how that is documented.

POST /predict                what the task takes, such as {"text": "..."} or {"text": ["...", "..."]}
POST /models/NAME/predict    the same of another model that is served here
GET  /card, /models/NAME/card
GET  /                       a page to try it
GET  /healthz                name, version, status
/v1/...                      embeddings as OpenAI's clients ask for them (embeddings.py)
/v2/...                      the Open Inference Protocol (oip.py)
GET  /docs, /openapi.json    a page that tells of all this, and what it is made of
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from raypath.components.serving.api import errors as problems
from raypath.components.serving.api.body import read_body
from raypath.components.serving.api.model_card import ModelCard, card_of
from raypath.components.serving.api.open_inference import routes as oip
from raypath.components.serving.api.openai import embeddings
from raypath.components.serving.api.openapi import READING, body_of, document, refusals
from raypath.components.serving.api.pages.pages import docs, page
from raypath.components.serving.middleware.request_limits import RequestLimitsMiddleware
from raypath.components.serving.protocol import Health, ModelService
from raypath.components.tasks.catalog import task_type


class AnyRequest(BaseModel):
    """What the task of the model takes, such as {"text": "..."}; its own page documents it."""


class AnyResponse(BaseModel):
    """What the task of the model answers."""

    model: str
    version: int
    predictions: list[object]


def build_api(service: ModelService) -> FastAPI:
    """The application of a service, with the request and the response of its task."""
    spec = service.spec
    kind = task_type(spec.task, spec.label_kind)
    about = (kind.__doc__ or "").partition("\n")[0]
    api = FastAPI(
        title=f"Raypath: {spec.name}", description=about, redirect_slashes=False, docs_url=None, redoc_url=None
    )
    api.add_middleware(RequestLimitsMiddleware)
    problems.install(api)

    @api.get("/healthz", response_model_exclude_none=True)
    async def healthz() -> Health:
        """Whether it answers, and with which version."""
        return service.health()

    _add_predict(api, service, kind.request, kind.response)

    @api.get("/card")
    async def card() -> ModelCard:
        """What the model is and how good it was."""
        return card_of(await service.pick(steady=True))

    @api.get("/models/{name}/card", responses=refusals(404, 422, 503))
    async def card_of_another(name: str) -> ModelCard:
        """The same of another model."""
        return card_of(await service.pick(name, steady=True))

    @api.get("/", include_in_schema=False)
    async def look() -> Response:
        return page(spec.name)

    # FastAPI's own would load scripts from other hosts.
    @api.get("/docs", include_in_schema=False)
    async def interface() -> Response:
        return docs(spec.name)

    api.include_router(embeddings.routes(service))
    api.include_router(oip.routes(service))
    document(api, kind.request, AnyRequest, embeddings.EmbeddingRequest, oip.InferRequest, keys=bool(spec.access))
    return api


def _add_predict(
    api: FastAPI, service: ModelService, request_of: type[BaseModel], response_of: type[BaseModel]
) -> None:
    """The routes that answer predictions.

    The body is read and checked here, once and in pydantic's own parser: FastAPI would build it in Python first, and
    check every answer a second time.
    """

    async def answered(request: Request, name: str | None) -> Response:
        model = await service.pick(name)
        given = problems.read(model.task.request, await read_body(request, service.spec.limits))
        answer = await service.answer(model, model.task.texts(given), request.scope.get("raypath.usage"))
        return Response(answer.model_dump_json(), media_type="application/json")

    @api.post(
        "/predict",
        response_model=None,
        responses={200: {"model": response_of}, **refusals(*READING)},
        openapi_extra=body_of(request_of),
    )
    async def predict(request: Request) -> Response:
        """Predictions, one a text."""
        return await answered(request, None)

    @api.post(
        "/models/{name}/predict",
        response_model=None,
        responses={200: {"model": AnyResponse}, **refusals(404, 503, *READING)},
        openapi_extra=body_of(AnyRequest),
    )
    async def predict_by_another(name: str, request: Request) -> Response:
        """The same by another model."""
        return await answered(request, name)
