"""The Serve application: one deployment that answers HTTP itself, batches across requests and swaps models in place.

    POST /predict    what the task takes, such as {"text": "..."} or {"text": ["...", "..."]}
    GET  /healthz    name, version, status
    GET  /docs, /openapi.json

The forward pass runs on a thread of its own, so that the event loop keeps accepting, and one at a time.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict
from ray import serve

from components.core.errors import DataError, RaypathError
from components.data.tokens import Encoder
from components.serving import cache, registry
from components.serving.engine import Engine
from components.serving.limits import Limits, check_texts, guard
from components.tasks import Task, load_task, task_type
from components.tasks.bases import Card, read_card

Array = np.ndarray[Any, Any]


class Spec(BaseModel):
    """What a replica needs to know; changing it replaces the replicas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str = "text_classification"
    label_kind: str = "string"
    """With the task, what a request and its answer look like."""
    tracking: str
    """MLflow server."""
    url: str
    """Where the application answers, without a slash at the end."""
    route: str
    threads: int
    """Of torch; 0 leaves them to torch."""
    limits: Limits
    options: dict[str, Any]
    """Of the Serve deployment."""


class Health(BaseModel):
    """What /healthz answers."""

    name: str
    version: int
    status: str
    """ok, or why the version that was asked for is not the one in service."""


@dataclass(frozen=True)
class Loaded:
    """One version, ready to answer."""

    version: int
    card: Card
    task: Task
    encoder: Encoder
    engine: Engine


def load(spec: Spec, version: int, source: str) -> Loaded:
    """Fetch, open and warm a version; 0 stands for the champion of this moment. Raises DataError, Unavailable."""
    place = cache.cache_folder()
    found = cache.cached(spec.tracking, spec.name, version, source, place)
    if found is None:
        wanted = f"models:/{spec.name}/{version}" if version else f"models:/{spec.name}@{registry.CHAMPION}"
        _, version, found = registry.resolve(spec.tracking, wanted, place)
    return _open(found, version, spec)


def _open(folder: Path, version: int, spec: Spec) -> Loaded:
    card = read_card(folder)
    if task_type(card.task, card.label_kind) is not task_type(spec.task, spec.label_kind):
        # Clients would be answered in another form than the one they were promised.
        told = f"it is a {card.task}, and what is in service is a {spec.task} of {spec.label_kind} labels"
        raise DataError(told, fix="run a workflow that serves it")
    engine = Engine(folder, spec.threads)
    engine.warm()
    return Loaded(version, card, load_task(card), Encoder(folder, card.max_length), engine)


@serve.deployment
@serve.ingress()
class Service:
    """One replica. `user_config` is {"version": N, "source": "models:/m-..."}: the model, or 0 for the champion."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = Spec(**spec)
        self.loaded: Loaded | None = None
        self.status = "ok"
        self.torch = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self.tokens = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        self._batch.set_max_batch_size(self.spec.limits.batch)
        self._batch.set_batch_wait_timeout_s(self.spec.limits.batch_wait)

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load the version beside the one in service, then swap; requests go on meanwhile.

        A version that cannot be loaded leaves the old one in service: raising would make Serve end the replica.
        """
        version, source = int(config.get("version", 0)), str(config.get("source", ""))
        self.status = "ok"
        if self.loaded is not None and version == self.loaded.version:
            return
        try:
            self.loaded = await asyncio.to_thread(load, self.spec, version, source)
        except RaypathError as error:
            if self.loaded is None:
                raise
            self.status = f"version {version} cannot be loaded: {error.what}"

    def describe(self) -> dict[str, Any]:
        """The spec, for who wants to change one thing of it."""
        return self.spec.model_dump()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self)

    def health(self) -> Health:
        assert self.loaded is not None
        return Health(name=self.spec.name, version=self.loaded.version, status=self.status)

    async def answer(self, texts: list[str]) -> BaseModel:
        """The task's response, one prediction a text. Raises HTTP 422 for texts beyond the limits, 504 for time."""
        check_texts(texts, self.spec.limits)
        model = self.loaded
        assert model is not None
        try:
            async with asyncio.timeout(self.spec.limits.seconds):
                recorded = await self._record(model, texts)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.spec.limits.seconds:g} seconds") from None
        predictions = model.task.answers(model.task.decode(recorded))
        return model.task.response(model=self.spec.name, version=model.version, predictions=predictions)

    async def _record(self, model: Loaded, texts: list[str]) -> Array:
        """What the task records of each text, float32 [B, outputs]."""
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self.tokens, model.encoder.encode, texts)
        # Neighbours in the queue share a batch: rows of like length pad less.
        order = sorted(range(len(tokens)), key=lambda n: len(tokens[n]))
        found: list[Any] = await asyncio.gather(*(self._batch((model, tokens[n])) for n in order))
        rows: list[Any] = [None] * len(tokens)
        for n, row in zip(order, found, strict=True):
            rows[n] = row
        return np.stack(rows)

    @serve.batch(max_concurrent_batches=1)  # type: ignore[untyped-decorator]
    async def _batch(self, items: list[tuple[Loaded, list[int]]]) -> list[Array]:
        """Rows of several requests in one pass; while models are swapped a batch may hold rows for both."""
        return await asyncio.get_running_loop().run_in_executor(self.torch, _forward, items)


def _forward(items: list[tuple[Loaded, list[int]]]) -> list[Array]:
    rows: list[Any] = [None] * len(items)
    for model in {id(model): model for model, _ in items}.values():
        mine = [n for n, (owner, _) in enumerate(items) if owner is model]
        for n, row in zip(mine, model.engine.record([items[n][1] for n in mine]), strict=True):
            rows[n] = row
    return rows


def build_api(service: Any) -> FastAPI:
    """The HTTP side of a service, with the request and the response of its task."""
    spec = service.spec
    kind = task_type(spec.task, spec.label_kind)
    api = FastAPI(title=f"Raypath: {spec.name}", description=(kind.__doc__ or "").partition("\n")[0])
    guard(api, spec.limits, tuple(kind.request.model_fields))

    @api.get("/healthz")
    async def healthz() -> Health:
        return service.health()  # type: ignore[no-any-return]

    async def predict(request: Any) -> Response:
        # Written out here: FastAPI would check every answer a second time against its type.
        answer = await service.answer(kind.texts(request))
        return Response(answer.model_dump_json(), media_type="application/json")

    # FastAPI reads the types of a request from annotations, and these are only known now.
    predict.__annotations__["request"] = kind.request
    told: dict[int | str, dict[str, Any]] = {200: {"model": kind.response}, 413: {}, 503: {}, 504: {}}
    api.post("/predict", response_model=None, responses=told)(predict)
    return api
