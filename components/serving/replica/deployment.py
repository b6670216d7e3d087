"""The Serve application: one deployment that answers HTTP itself (api.py), batches across requests (batching.py) and
swaps models in place (versions.py)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from ray import serve

from raypath.components.core.arrays import Array
from raypath.components.core.errors import RaypathError
from raypath.components.inference.dynamic_batching import Batcher
from raypath.components.serving.api.body import check_texts
from raypath.components.serving.api.openapi import OPEN
from raypath.components.serving.api.routes import build_api
from raypath.components.serving.metering.usage import Usage, UsageMeter
from raypath.components.serving.middleware.auth import AuthMiddleware
from raypath.components.serving.middleware.request_limits import LoadSheddingMiddleware
from raypath.components.serving.middleware.request_log import RequestLogMiddleware
from raypath.components.serving.model_versions import OTHER, LoadedModel, ReplicaPlan
from raypath.components.serving.observability import tracing
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.prediction_log import PredictionLog
from raypath.components.serving.observability.request_context import current_request
from raypath.components.serving.protocol import Health
from raypath.components.serving.replica.model_manager import ModelManager
from raypath.components.serving.replica.rate_share import update_share
from raypath.components.serving.replica.registry_watcher import follow, give_back
from raypath.components.serving.replica.shadow import Shadow
from raypath.components.serving.replica.status import health_status, replica_status
from raypath.components.serving.replica_plan import plan_now
from raypath.components.serving.spec import EndpointSpec
from raypath.components.tasks.catalog import task_type

log = logging.getLogger("ray.serve")
AGAIN = 10.0
"""Seconds after which a version that could not be fetched is asked for again."""
AT_ONCE = 4_000
"""Characters up to which texts are tokenised on the event loop, which the others wait for meanwhile."""


def guarded(api: FastAPI, spec: EndpointSpec) -> AuthMiddleware:
    """The application behind keys. Without one only health answers, and the page that asks for a key."""
    folder = Path(spec.access)
    usage = Path(spec.usage) if spec.usage else folder / "usage"
    meter = UsageMeter(usage, f"{spec.name}-{os.getpid()}", model=spec.name)
    return AuthMiddleware(api, folder, meter, OPEN, share=1 / spec.replicas)


@serve.deployment
@serve.ingress()
class Service:
    """One replica. `user_config` is a ReplicaPlan."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = EndpointSpec(**spec)
        kind = task_type(self.spec.task, self.spec.label_kind)
        self.versions = ModelManager(
            self.spec.tracking, kind, self.spec.threads, separate_adapters=bool(self.spec.also)
        )
        self.tasks: dict[str, asyncio.Task[None]] = {}
        """What goes on beside the requests, by its name; another one takes the place of the one before."""
        self.access: AuthMiddleware | None = None
        self.tokens = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        self.batcher: Batcher | None = None
        self.metrics = Metrics(self.spec.name)
        self.log = _prediction_log(self.spec, self.metrics)
        self.shadow = Shadow(self.metrics, self.log)
        tracing.start(self.spec.name)

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load what is new beside what is in service, then swap; requests go on meanwhile.

        A version that cannot be loaded leaves the old one in service: raising would make Serve end the replica.
        """
        if self.batcher is None:
            limits = self.spec.limits
            self.batcher = Batcher(limits.batch, limits.max_queue_seconds, self._cores(), self.metrics.batch)
            self.metrics.watch(self.batcher.waiting)
            self.metrics.start()
            if self.access is not None and self.spec.replicas > 1:
                self._go_on("share", update_share(self.access.rates, self.spec))
        plan = ReplicaPlan(**config)
        if self.spec.follow:
            plan = await self._follow(plan)
        await self._take(plan)

    def _go_on(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        if (before := self.tasks.pop(what, None)) is not None:
            before.cancel()
        self.tasks[what] = asyncio.create_task(work)

    async def _take(self, plan: ReplicaPlan) -> bool:
        """Hold what the plan says; whether all of it is held now."""
        await self.versions.take(plan)
        self.metrics.versions({role: held.version for role, held in self.versions.roles()})
        self.shadow.take(self.versions.shadow)
        faults = self.versions.faults
        if self.spec.follow:
            await self._give_back()
        elif any(not fault.rejected for fault in faults.values()):
            self._go_on("again", self._again(plan))
        return not faults

    async def _give_back(self) -> None:
        await asyncio.to_thread(give_back, self.spec, dict(self.versions.faults), self.versions.version_of)

    async def _again(self, plan: ReplicaPlan) -> None:
        """What could not be fetched is asked for again, until the plan changes."""
        await asyncio.sleep(AGAIN)
        if plan == self.versions.plan:
            self.tasks.pop("again", None)  # this task, which the next one must not cancel
            await self._take(plan)

    async def _follow(self, plan: ReplicaPlan) -> ReplicaPlan:
        """What the registry says now, `plan` where it says nothing; from here on it is asked again and again."""
        try:
            plan = await asyncio.to_thread(plan_now, self.spec)
        except RaypathError as error:
            log.warning("the registry was not heard: %s", error.what)
        self._go_on("follow", follow(self.spec, plan, self._take))
        return plan

    def _cores(self) -> int:
        import torch

        return 1 if torch.cuda.is_available() else self.spec.threads or torch.get_num_threads()

    def __serve_build_asgi_app__(self) -> Any:
        api: Any = build_api(self)
        if self.spec.access:
            api = self.access = guarded(api, self.spec)
        api = LoadSheddingMiddleware(
            api, lambda: self.batcher.wait() if self.batcher else 0.0, self.spec.limits.max_queue_seconds
        )
        return RequestLogMiddleware(api, self.metrics, self.spec.log_requests)

    def health(self) -> Health:
        main = self.versions.main
        assert main is not None
        return Health(name=self.spec.name, version=main.version, status=health_status(self.versions))

    async def state(self, model: str = "") -> dict[str, Any]:
        """Return the ReplicaStatus of this replica; `model` is loaded first."""
        if model and model != self.spec.name:
            with contextlib.suppress(KeyError, RaypathError):  # the fault is in the state
                await self.versions.other(model)
        return replica_status(self.versions, self.shadow.compared, self.metrics.rate()).model_dump()

    def names(self) -> list[str]:
        """The models that may be asked for, the main one first."""
        return [self.spec.name, *self.spec.also]

    async def pick(self, name: str | None = None, version: int = 0, steady: bool = False) -> LoadedModel:
        """The version that answers a request for a model, the main model if none is named.

        version: no other will do; 0: any. steady: not the canary, where answers of two versions do not go together.
        Raises HTTP 404 for a model or a version that is not here, 503 for a broken one.
        """
        if name is None or name in self.names():  # never a name that a client made up
            current_request().asked = name or self.spec.name
        if name is None or name == self.spec.name:
            held = self.versions.held(version, steady)
        else:
            held = await self._other(name)
        if held is None or version not in (0, held.version):
            raise HTTPException(404, "no such version is in service here")
        return held

    async def _other(self, name: str) -> LoadedModel:
        before = self.versions.faults.get(OTHER + name)
        try:
            return await self.versions.other(name)
        except KeyError:
            raise HTTPException(404, f"no model {name} here; there are {', '.join(self.names())}") from None
        except RaypathError as error:
            if self.spec.follow and self.versions.faults.get(OTHER + name) is not before:
                await self._give_back()
            log.warning("%s%s cannot be loaded: %s", OTHER, name, error.what)
            raise HTTPException(503, f"model {name} cannot be loaded; ask its operator") from None

    async def answer(self, model: LoadedModel, texts: list[str], usage: Usage | None = None) -> BaseModel:
        """The task's response, one prediction a text; raises what `recorded` raises."""
        predictions = model.task.predictions(await self.decoded(model, texts, usage))
        return model.task.response(model=model.name, version=model.version, predictions=predictions)

    async def decoded(self, model: LoadedModel, texts: list[str], usage: Usage | None = None) -> Array:
        """What the task decodes of each text, [N, K]; `usage` is filled in. Raises what `recorded` raises."""
        decoded = model.task.decode(await self.recorded(model, texts, usage))
        now, kept = current_request(), False
        if self.log is not None:
            kept = self.log.note(model, decoded, texts, id=now.id, role=now.role, ms=now.ms)
        if model is self.versions.main and self.batcher is not None:
            busy = self.batcher.wait() > 0
            self.shadow.ask(self.recorded, busy, texts, model, decoded, now.id if kept else None)
        return decoded

    async def recorded(
        self, model: LoadedModel, texts: list[str], usage: Usage | None = None, engine: Any = None
    ) -> Array:
        """What an engine, the model's own if none is given, makes of each text, [N, outputs]; `usage` is filled in.

        Raises QueueFull, HTTP 422 for texts beyond the limits, 504 for time.
        """
        check_texts(texts, self.spec.limits)
        batcher, now = self.batcher, current_request()
        assert batcher is not None
        now.answered_by(model.name, model.version, "canary" if model is self.versions.canary else "main")
        try:
            async with asyncio.timeout(self.spec.limits.seconds):
                with tracing.span("tokenise", texts=len(texts)):
                    tokens = await self._tokens(model, texts)
                now.texts, now.tokens = len(texts), sum(map(len, tokens))
                with tracing.span("model", tokens=now.tokens, waiting=batcher.waiting()[0]):
                    recorded = await batcher.record(engine or model.engine, tokens)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.spec.limits.seconds:g} seconds") from None
        if usage is not None:
            usage.tokens = now.tokens
            usage.compute_seconds = usage.tokens / batcher.speed * batcher.cores
        return recorded

    async def _tokens(self, model: LoadedModel, texts: list[str]) -> list[list[int]]:
        """Token ids; more than a moment's work is done off the event loop."""
        if sum(map(len, texts)) < AT_ONCE:
            return model.tokenizer.encode(texts)
        return await asyncio.get_running_loop().run_in_executor(self.tokens, model.tokenizer.encode, texts)


def _prediction_log(spec: EndpointSpec, metrics: Metrics) -> PredictionLog | None:
    if not spec.predictions:
        return None

    def count(what: str, rows: int) -> None:
        metrics.count(f"raypath_predictions_{what}", rows)

    return PredictionLog(Path(spec.predictions), str(os.getpid()), spec.share, spec.texts, count=count)
