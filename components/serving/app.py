"""The Serve application: one deployment that answers HTTP itself (api.py), batches across requests (batching.py) and
swaps models in place."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from ray import serve

from components.core.errors import DataError, RaypathError
from components.data.tokens import Encoder
from components.serving import cache, registry
from components.serving.access import Access
from components.serving.api import Health, build_api
from components.serving.batching import Batcher
from components.serving.engine import Engine
from components.serving.limits import Limits, check_texts
from components.serving.usage import Meter, Usage
from components.tasks import Task, load_task, task_type
from components.tasks.bases import Card, read_card

Array = np.ndarray[Any, Any]
OPEN = ("/healthz", "/", "/v2/health/live", "/v2/health/ready")
AT_ONCE = 4_000
"""Characters up to which texts are tokenised on the event loop, which the others wait for meanwhile."""


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
    access: str = ""
    """Folder of the keys, which every replica has to see; "" asks for none."""
    options: dict[str, Any]
    """Of the Serve deployment."""


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


def guarded(api: FastAPI, spec: Spec) -> Access:
    """The application behind keys. Without one only health answers, and the page that asks for a key."""
    folder = Path(spec.access)
    meter = Meter(folder / "usage", f"{spec.name}-{os.getpid()}", model=spec.name)
    return Access(api, folder, meter, OPEN, share=1 / spec.options.get("num_replicas", 1))


@serve.deployment
@serve.ingress()
class Service:
    """One replica. `user_config` is {"version": N, "source": "models:/m-..."}: the model, or 0 for the champion."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = Spec(**spec)
        self.loaded: Loaded | None = None
        self.status = "ok"
        self.tokens = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        self.batcher: Batcher | None = None

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load the version beside the one in service, then swap; requests go on meanwhile.

        A version that cannot be loaded leaves the old one in service: raising would make Serve end the replica.
        """
        version, source = int(config.get("version", 0)), str(config.get("source", ""))
        self.status = "ok"
        if self.batcher is None:
            self.batcher = Batcher(self.spec.limits.batch, self.spec.limits.patience, self._cores())
        if self.loaded is not None and version == self.loaded.version:
            return
        try:
            self.loaded = await asyncio.to_thread(load, self.spec, version, source)
        except RaypathError as error:
            if self.loaded is None:
                raise
            self.status = f"version {version} cannot be loaded: {error.what}"

    def _cores(self) -> int:
        import torch

        return 1 if torch.cuda.is_available() else self.spec.threads or torch.get_num_threads()

    def describe(self) -> dict[str, Any]:
        """The spec, for who wants to change one thing of it."""
        return self.spec.model_dump()

    def __serve_build_asgi_app__(self) -> Any:
        api = build_api(self)
        return guarded(api, self.spec) if self.spec.access else api

    def health(self) -> Health:
        assert self.loaded is not None
        return Health(name=self.spec.name, version=self.loaded.version, status=self.status)

    async def answer(self, texts: list[str], usage: Usage | None = None) -> BaseModel:
        """The task's response, one prediction a text; raises what `decoded` raises."""
        model, decoded = await self.decoded(texts, usage)
        predictions = model.task.answers(decoded)
        return model.task.response(model=self.spec.name, version=model.version, predictions=predictions)

    async def decoded(self, texts: list[str], usage: Usage | None = None) -> tuple[Loaded, Array]:
        """The model that answered, and what its task decoded of each text, [N, K]; `usage` is filled in.

        Raises Busy, HTTP 422 for texts beyond the limits, 504 for time.
        """
        check_texts(texts, self.spec.limits)
        model, batcher = self.loaded, self.batcher
        assert model is not None
        assert batcher is not None
        try:
            async with asyncio.timeout(self.spec.limits.seconds):
                tokens = await self._tokens(model, texts)
                recorded = await batcher.record(model.engine, tokens)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.spec.limits.seconds:g} seconds") from None
        if usage is not None:
            usage.tokens = sum(map(len, tokens))
            usage.compute_seconds = usage.tokens / batcher.speed * batcher.cores
        return model, model.task.decode(recorded)

    async def _tokens(self, model: Loaded, texts: list[str]) -> list[list[int]]:
        """Token ids; more than a moment's work is done off the event loop."""
        if sum(map(len, texts)) < AT_ONCE:
            return model.encoder.encode(texts)
        return await asyncio.get_running_loop().run_in_executor(self.tokens, model.encoder.encode, texts)
