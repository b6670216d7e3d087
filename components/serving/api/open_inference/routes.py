"""Open Inference Protocol, version 2, over HTTP, for clients of KServe, Triton and Seldon.

    GET  /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready
    POST /v2/models/NAME/infer    {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [N], "data": [...]}]}

A model with several input columns takes one input for each, by name: BYTES, FP64 for numbers, BOOL.

Each also as /v2/models/NAME/versions/N/...; source: github.com/kserve/open-inference-protocol. Requests may use
Triton's binary extension (binary.py); responses are JSON.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from raypath.components.core.arrays import Array
from raypath.components.serving.api.body import read_body
from raypath.components.serving.api.errors import read
from raypath.components.serving.api.open_inference.binary import HEADER, read_binary
from raypath.components.serving.api.open_inference.inputs import FORMS, MAX_INPUTS, InferInput, tensors_of, texts_of
from raypath.components.serving.api.openapi import BODY_ERRORS, body_of, error_responses

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import LoadedModel
    from raypath.components.serving.protocol import ModelService

PLATFORM = "raypath"


class InferOutput(BaseModel):
    """A requested tensor."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=256)


class InferRequest(BaseModel):
    """An inference request; without `outputs` it returns all tensors."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(None, max_length=256)
    inputs: list[InferInput] = Field(min_length=1, max_length=MAX_INPUTS)
    outputs: list[InferOutput] | None = Field(None, max_length=16)


class Tensor(BaseModel):
    """Numbers or strings, flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, str | float | bool] | None = None


class InferResponse(BaseModel):
    """Tensors `scores`, the task's decoded outputs [N, K] with the labels as a JSON list in `parameters`, and `label`,
    the predicted class [N], for tasks with a single class."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class Server(BaseModel):
    """Response of /v2."""

    name: str = PLATFORM
    version: str = "2"
    extensions: list[str] = []


class TensorInfo(BaseModel):
    """Name, type and shape of a tensor; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class Metadata(BaseModel):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str = PLATFORM
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class Live(BaseModel):
    """Liveness of the server."""

    live: bool = True


class Ready(BaseModel):
    """Readiness of the server; a replica receives no request before its model is loaded."""

    ready: bool = True


class ModelReady(Ready):
    """Readiness of a model."""

    name: str


def routes(service: ModelService) -> APIRouter:
    """Build the protocol's routes of a service."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    known = error_responses(404, 422, 503)

    @router.get("")
    async def server() -> Server:
        return Server()

    @router.get("/health/live")
    async def live() -> Live:
        return Live()

    @router.get("/health/ready")
    async def ready() -> Ready:
        return Ready()

    @router.get("/models/{model}", responses=known)
    @router.get("/models/{model}/versions/{version}", responses=known)
    async def metadata(model: str, version: str = "") -> Metadata:
        return metadata_of(await _select_model(service, model, version))

    @router.get("/models/{model}/ready", responses=known)
    @router.get("/models/{model}/versions/{version}/ready", responses=known)
    async def model_ready(model: str, version: str = "") -> ModelReady:
        return ModelReady(name=(await _select_model(service, model, version)).name)

    options: dict[str, Any] = {
        "response_model": None,
        "responses": {200: {"model": InferResponse}, **error_responses(404, 503, *BODY_ERRORS)},
        "openapi_extra": body_of(InferRequest),
    }

    @router.post("/models/{model}/infer", **options)
    @router.post("/models/{model}/versions/{version}/infer", **options)
    async def infer(model: str, request: Request, version: str = "") -> Response:
        loaded = await _select_model(service, model, version)
        given = await _read_request(request, service, loaded)
        usage, size = request.scope.get("raypath.usage"), sum(len(str(tensor.data)) for tensor in given.inputs)
        texts = await service.read_texts(loaded, size, lambda: texts_of(loaded.task, given.inputs))
        decoded = await service.decode(loaded, texts, usage)
        outputs = _requested_outputs(tensors(loaded, decoded), given.outputs)
        response = InferResponse(model_name=model, model_version=str(loaded.version), id=given.id, outputs=outputs)
        return Response(response.model_dump_json(exclude_none=True), media_type="application/json")

    return router


async def _select_model(service: ModelService, model: str, version: str) -> LoadedModel:
    """Return the model of a path. Raises HTTP 404."""
    if version and not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise HTTPException(404, "this version is not in service")
    return await service.select_model(model, int(version or 0))


async def _read_request(request: Request, service: ModelService, loaded: LoadedModel) -> InferRequest:
    settings, columns = service.spec.serve, len(tensors_of(loaded.task))
    if HEADER in request.headers:
        return read(InferRequest, await read_binary(request, settings, columns), *FORMS)
    return read(InferRequest, await read_body(request, settings, columns=columns), *FORMS)


def _requested_outputs(found: list[Tensor], wanted: list[InferOutput] | None) -> list[Tensor]:
    """Return the requested tensors. Raises HTTP 422 for an unknown one."""
    by_name = {tensor.name: tensor for tensor in found}
    names = list(by_name) if wanted is None else [output.name for output in wanted]
    if not set(names) <= set(by_name):
        raise HTTPException(422, f"no such output; outputs: {', '.join(by_name)}")
    return [by_name[name] for name in names]


def metadata_of(loaded: LoadedModel) -> Metadata:
    """Return inputs and outputs of a version."""
    found = tensors(loaded, loaded.task.decode(np.zeros((1, loaded.task.outputs), np.float32)))
    outputs = [TensorInfo(name=t.name, datatype=t.datatype, shape=[-1, *t.shape[1:]]) for t in found]
    inputs = [TensorInfo(name=name, datatype=kind, shape=[-1]) for name, kind in tensors_of(loaded.task).items()]
    return Metadata(name=loaded.name, versions=[str(loaded.version)], inputs=inputs, outputs=outputs)


def tensors(loaded: LoadedModel, decoded: Array) -> list[Tensor]:
    """Convert decoded outputs, [N, K], to tensors of the protocol."""
    # The protocol allows no list as a parameter, so it is JSON.
    labels: dict[str, str | float | bool] = {"labels": json.dumps(loaded.metadata.labels, ensure_ascii=False)}
    flat = decoded.astype(np.float32).ravel().tolist()
    found = [Tensor(name="scores", shape=list(decoded.shape), datatype="FP32", data=flat, parameters=labels)]
    predicted = loaded.task.columns(decoded).get("predicted")
    if predicted is not None and pa.types.is_string(predicted.type):
        found.append(Tensor(name="label", shape=[len(predicted)], datatype="BYTES", data=predicted.to_pylist()))
    return found
