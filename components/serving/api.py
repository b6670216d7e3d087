"""The HTTP side of a service: what it answers, and how that is documented.

POST /predict    what the task takes, such as {"text": "..."} or {"text": ["...", "..."]}
GET  /           a page to try it
GET  /healthz    name, version, status
/v2/...          the Open Inference Protocol (oip.py)
GET  /docs, /openapi.json
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from components.serving import oip, problems
from components.serving.limits import read_body
from components.serving.page import page
from components.tasks import task_type

if TYPE_CHECKING:
    from components.serving.app import Service


class Health(BaseModel):
    """What /healthz answers."""

    name: str
    version: int
    status: str
    """ok, or why the version that was asked for is not the one in service."""


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": problems.Problem, "description": told}
    for status, told in (
        (413, "The body is too large."),
        (415, "The body is no plain JSON."),
        (422, "The request does not fit."),
        (429, "Too much work is waiting; Retry-After says how many seconds."),
        (504, "No answer in time."),
    )
}


def build_api(service: Service) -> FastAPI:
    """The application of a service, with the request and the response of its task."""
    spec = service.spec
    kind = task_type(spec.task, spec.label_kind)
    api = FastAPI(title=f"Raypath: {spec.name}", description=(kind.__doc__ or "").partition("\n")[0])
    problems.install(api, tuple(kind.request.model_fields))

    @api.get("/healthz")
    async def healthz() -> Health:
        return service.health()

    # The body is read and checked here, once and in pydantic's own parser: FastAPI would build it in Python first, and
    # check every answer a second time.
    @api.post(
        "/predict",
        response_model=None,
        responses={200: {"model": kind.response}, **REFUSALS},
        openapi_extra=_body_of(kind.request),
    )
    async def predict(request: Request) -> Response:
        given = kind.request.model_validate_json(await read_body(request, spec.limits))
        answer = await service.answer(kind.texts(given), request.scope.get("raypath.usage"))
        return Response(answer.model_dump_json(), media_type="application/json")

    @api.get("/", include_in_schema=False)
    async def look() -> Response:
        return page(spec.name)

    api.include_router(oip.routes(service))
    return api


def _body_of(kind: type[BaseModel]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
