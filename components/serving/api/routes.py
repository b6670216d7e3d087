"""HTTP routes of a service.

POST /predict                the task's request, such as {"text": "..."}, {"text": ["...", "..."]}, or for several input
                             columns {"rows": [{"title": "...", "body": "..."}]}
POST /models/NAME/predict    the same for an additional model
GET  /card, /models/NAME/card
GET  /                       a page to try the model
GET  /healthz                name, version, status
GET  /usage                  usage of the key's tenant
/v1/...                      OpenAI-compatible embeddings (openai/embeddings.py)
/encrypted, ...              predictions on encrypted features (encrypted/routes.py), with serve.encrypted
/v2/...                      the Open Inference Protocol (open_inference/routes.py)
GET  /docs, /openapi.json    the interface, as a page and as an OpenAPI document
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from raypath.components.core.columns import inputs_of
from raypath.components.serving.api import errors as problems
from raypath.components.serving.api.body import read_body
from raypath.components.serving.api.common_routes import add_card, add_pages, new_api
from raypath.components.serving.api.open_inference import routes as oip
from raypath.components.serving.api.openai import embeddings, models
from raypath.components.serving.api.openapi import BODY_ERRORS, body_of, document, error_responses
from raypath.components.serving.api.usage_routes import add_usage
from raypath.components.serving.protocol import ModelService
from raypath.components.tasks.catalog import task_type
from raypath.components.tasks.schemas import request_type


class AnyRequest(BaseModel):
    """The request of the model's task, such as {"text": "..."}."""


class AnyResponse(BaseModel):
    """The response of the model's task."""

    model: str
    version: int
    predictions: list[object]


def build_api(service: ModelService) -> FastAPI:
    """Build the routes of a service, with the schemas of its task."""
    spec = service.spec
    kind = task_type(spec.task, spec.label_kind)
    about = (kind.__doc__ or "").partition("\n")[0]
    api = new_api(service, about)
    request = request_type(kind.request, spec.columns)
    _add_predict(api, service, request, kind.response)

    add_card(api, service)
    add_pages(api, spec.name)
    add_usage(api, spec)
    api.include_router(models.routes(service))
    api.include_router(embeddings.routes(service))
    api.include_router(oip.routes(service))
    if spec.serve.encrypted:
        from raypath.components.serving.api.encrypted import routes as encrypted

        api.include_router(encrypted.routes(service))
    document(api, request, AnyRequest, embeddings.EmbeddingRequest, oip.InferRequest, keys=bool(spec.access))
    return api


def _add_predict(
    api: FastAPI, service: ModelService, request_of: type[BaseModel], response_of: type[BaseModel]
) -> None:
    """Add the prediction routes.

    The body is parsed here, once and by pydantic: FastAPI would parse it in Python first, and validate every response
    a second time.
    """

    async def respond(request: Request, name: str | None) -> Response:
        model = await service.select_model(name)
        body = await read_body(request, service.spec.serve, columns=len(inputs_of(model.metadata.columns)))
        given = problems.read(model.task.request_type, body)
        texts = await service.read_texts(model, len(body), lambda: problems.texts(model.task, given))
        response = await service.predict(model, texts, request.scope.get("raypath.usage"))
        return Response(response.model_dump_json(), media_type="application/json")

    @api.post(
        "/predict",
        response_model=None,
        responses={200: {"model": response_of}, **error_responses(*BODY_ERRORS)},
        openapi_extra=body_of(request_of),
    )
    async def predict(request: Request) -> Response:
        """Predict, one prediction per text."""
        return await respond(request, None)

    @api.post(
        "/models/{name}/predict",
        response_model=None,
        responses={200: {"model": AnyResponse}, **error_responses(404, 503, *BODY_ERRORS)},
        openapi_extra=body_of(AnyRequest),
    )
    async def predict_with_additional(name: str, request: Request) -> Response:
        """Predict with an additional model."""
        return await respond(request, name)
