"""The Open Inference Protocol, version 2, over HTTP: what clients of KServe, Triton and Seldon speak.

    GET  /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready
    POST /v2/models/NAME/infer    {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [N], "data": [...]}]}

Each also as /v2/models/NAME/versions/N/...; source: github.com/kserve/open-inference-protocol. Of Triton's binary
extension what a client sends is understood (oip_binary.py); answers are JSON.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from raypath.components.core.arrays import Array
from raypath.components.serving.api.body import read_body
from raypath.components.serving.api.errors import read
from raypath.components.serving.api.open_inference.binary import HEADER, read_binary
from raypath.components.serving.api.openapi import READING, body_of, refusals

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import LoadedModel
    from raypath.components.serving.protocol import ModelService

PLATFORM = "raypath"
Size = Annotated[int, Field(ge=0, lt=1 << 31)]


class InferInput(BaseModel):
    """Texts, one an element."""

    model_config = ConfigDict(extra="ignore")

    name: Literal["text"]
    shape: list[Size] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES"]
    data: list[str] = Field(fail_fast=True)


class InferOutput(BaseModel):
    """A tensor that is asked for."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=256)


class InferRequest(BaseModel):
    """What a client sends; without `outputs` it is answered all."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(None, max_length=256)
    inputs: list[InferInput] = Field(min_length=1, max_length=1)
    outputs: list[InferOutput] | None = Field(None, max_length=16)


class Tensor(BaseModel):
    """Numbers or words, flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, str | float | bool] | None = None


class InferResponse(BaseModel):
    """`scores`: what the task decodes of each text, [N, K], whose K labels are a JSON list in `parameters`; `label`:
    the predicted class where there is one, [N]."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class Server(BaseModel):
    """What /v2 answers."""

    name: str = PLATFORM
    version: str = "2"
    extensions: list[str] = []


class TensorInfo(BaseModel):
    """A tensor that is taken or given; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class Metadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str = PLATFORM
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class Live(BaseModel):
    """Whether the server runs."""

    live: bool = True


class Ready(BaseModel):
    """Whether the server answers: a replica is asked nothing before it has its model."""

    ready: bool = True


class ModelReady(Ready):
    """Whether a model answers."""

    name: str


def routes(service: ModelService) -> APIRouter:
    """The protocol's routes for one service."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    known = refusals(404, 422, 503)

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
        return metadata_of(await _picked(service, model, version))

    @router.get("/models/{model}/ready", responses=known)
    @router.get("/models/{model}/versions/{version}/ready", responses=known)
    async def model_ready(model: str, version: str = "") -> ModelReady:
        return ModelReady(name=(await _picked(service, model, version)).name)

    told: dict[str, Any] = {
        "response_model": None,
        "responses": {200: {"model": InferResponse}, **refusals(404, 503, *READING)},
        "openapi_extra": body_of(InferRequest),
    }

    @router.post("/models/{model}/infer", **told)
    @router.post("/models/{model}/versions/{version}/infer", **told)
    async def infer(model: str, request: Request, version: str = "") -> Response:
        loaded = await _picked(service, model, version)
        given = await _given(request, service)
        texts, usage = given.inputs[0].data, request.scope.get("raypath.usage")
        if math.prod(given.inputs[0].shape) != len(texts):
            raise HTTPException(422, f"the shape does not fit {len(texts)} elements")
        decoded = await service.decoded(loaded, texts, usage)
        outputs = _chosen(tensors(loaded, decoded), given.outputs)
        answer = InferResponse(model_name=model, model_version=str(loaded.version), id=given.id, outputs=outputs)
        return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")

    return router


async def _picked(service: ModelService, model: str, version: str) -> LoadedModel:
    """The model of a path. Raises HTTP 404."""
    if version and not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise HTTPException(404, "no such version is in service here")
    return await service.pick(model, int(version or 0))


async def _given(request: Request, service: ModelService) -> InferRequest:
    limits = service.spec.limits
    if HEADER in request.headers:
        return read(InferRequest, await read_binary(request, limits))
    return read(InferRequest, await read_body(request, limits))


def _chosen(made: list[Tensor], wanted: list[InferOutput] | None) -> list[Tensor]:
    """The tensors that are asked for. Raises HTTP 422 for one that is not there."""
    by_name = {tensor.name: tensor for tensor in made}
    names = list(by_name) if wanted is None else [output.name for output in wanted]
    if not set(names) <= set(by_name):
        raise HTTPException(422, f"no such output; there are {', '.join(by_name)}")
    return [by_name[name] for name in names]


def metadata_of(loaded: LoadedModel) -> Metadata:
    """What a version takes and gives, as an answer shows it."""
    made = tensors(loaded, loaded.task.decode(np.zeros((1, loaded.task.outputs), np.float32)))
    outputs = [TensorInfo(name=t.name, datatype=t.datatype, shape=[-1, *t.shape[1:]]) for t in made]
    inputs = [TensorInfo(name="text", datatype="BYTES", shape=[-1])]
    return Metadata(name=loaded.name, versions=[str(loaded.version)], inputs=inputs, outputs=outputs)


def tensors(loaded: LoadedModel, decoded: Array) -> list[Tensor]:
    """What was decoded, [N, K], as tensors of the protocol."""
    # A parameter is a text, a number or a truth value, by the protocol; so the list goes as JSON.
    labels: dict[str, str | float | bool] = {"labels": json.dumps(loaded.metadata.labels, ensure_ascii=False)}
    flat = decoded.astype(np.float32).ravel().tolist()
    made = [Tensor(name="scores", shape=list(decoded.shape), datatype="FP32", data=flat, parameters=labels)]
    predicted = loaded.task.columns(decoded).get("predicted")
    if predicted is not None and pa.types.is_string(predicted.type):
        made.append(Tensor(name="label", shape=[len(predicted)], datatype="BYTES", data=predicted.to_pylist()))
    return made
