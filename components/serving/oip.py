"""The Open Inference Protocol, version 2, over HTTP: what clients of KServe, Triton and Seldon speak.

    GET  /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready
    POST /v2/models/NAME/infer    {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [N], "data": [...]}]}

Each also as /v2/models/NAME/versions/N/...; source: github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from components.serving.limits import read_body

if TYPE_CHECKING:
    from components.serving.app import Loaded, Service

PLATFORM = "raypath"


class InferInput(BaseModel):
    """Texts, one an element."""

    model_config = ConfigDict(extra="ignore")

    name: Literal["text"]
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES"]
    data: list[str]


class InferRequest(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(None, max_length=256)
    inputs: list[InferInput] = Field(min_length=1, max_length=1)


class Tensor(BaseModel):
    """Numbers or words, flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class InferResponse(BaseModel):
    """`scores`: what the task decodes of each text, [N, K]; `label`: the predicted class where there is one, [N]."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


def routes(service: Service) -> APIRouter:
    """The protocol's routes for one service."""
    router, name = APIRouter(prefix="/v2", tags=["Open Inference Protocol"]), service.spec.name

    def known(model: str, version: str = "") -> Loaded:
        loaded = service.loaded
        if loaded is None or model != name or version not in ("", str(loaded.version)):
            raise HTTPException(404, "no such model or version is in service here")
        return loaded

    @router.get("")
    async def server() -> dict[str, Any]:
        return {"name": PLATFORM, "version": "2", "extensions": []}

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": service.loaded is not None}

    @router.get("/models/{model}")
    @router.get("/models/{model}/versions/{version}")
    async def metadata(model: str, version: str = "") -> dict[str, Any]:
        loaded = known(model, version)
        outputs = [{"name": "scores", "datatype": "FP32", "shape": [-1, loaded.task.outputs]}]
        text = {"name": "text", "datatype": "BYTES", "shape": [-1]}
        versions = [str(loaded.version)]
        return {"name": name, "versions": versions, "platform": PLATFORM, "inputs": [text], "outputs": outputs}

    @router.get("/models/{model}/ready")
    @router.get("/models/{model}/versions/{version}/ready")
    async def model_ready(model: str, version: str = "") -> dict[str, Any]:
        known(model, version)
        return {"name": name, "ready": True}

    body = {"requestBody": {"content": {"application/json": {"schema": InferRequest.model_json_schema()}}}}

    @router.post("/models/{model}/infer", response_model=InferResponse, openapi_extra=body)
    @router.post("/models/{model}/versions/{version}/infer", response_model=InferResponse, openapi_extra=body)
    async def infer(model: str, request: Request, version: str = "") -> Any:
        known(model, version)
        given = InferRequest.model_validate_json(await read_body(request, service.spec.limits))
        texts = given.inputs[0].data
        if int(np.prod(given.inputs[0].shape)) != len(texts):
            raise HTTPException(422, f"the shape does not fit {len(texts)} elements")
        loaded, decoded = await service.decoded(texts, request.scope.get("raypath.usage"))
        outputs = tensors(loaded, decoded)
        return InferResponse(model_name=name, model_version=str(loaded.version), id=given.id, outputs=outputs)

    return router


def tensors(loaded: Loaded, decoded: np.ndarray[Any, Any]) -> list[Tensor]:
    """What was decoded, [N, K], as tensors of the protocol."""
    labels = {"labels": list(loaded.card.labels)}
    made = [
        Tensor(
            name="scores",
            shape=list(decoded.shape),
            datatype="FP32",
            data=decoded.astype(np.float32).ravel().tolist(),
            parameters=labels,
        )
    ]
    predicted = loaded.task.columns(decoded).get("predicted")
    if predicted is not None and pa.types.is_string(predicted.type):
        made.append(Tensor(name="label", shape=[len(predicted)], datatype="BYTES", data=predicted.to_pylist()))
    return made
