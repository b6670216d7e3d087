"""The Ray Serve deployment: one replica serves HTTP, batches across requests and swaps models in place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from ray import serve

from raypath.components.core.arrays import Array
from raypath.components.core.errors import RaypathError
from raypath.components.inference.dynamic_batching import Batcher, CoreSeconds, QueueFull
from raypath.components.serving.api.body import check_texts
from raypath.components.serving.api.routes import build_api, route_table
from raypath.components.serving.live.live_test import LiveTest
from raypath.components.serving.live.watcher import Swap, watch_live
from raypath.components.serving.metering.ledger import Ledger, SharedLedger
from raypath.components.serving.metering.usage import Usage, UsageMeter
from raypath.components.serving.middleware.auth import AuthMiddleware
from raypath.components.serving.middleware.cors import CorsMiddleware
from raypath.components.serving.middleware.request_limits import LoadSheddingMiddleware, RequestLimitsMiddleware
from raypath.components.serving.middleware.request_log import RequestLogMiddleware
from raypath.components.serving.middleware.strict_http import reject_trailers
from raypath.components.serving.model_versions import LoadedModel, ReplicaPlan, Role
from raypath.components.serving.observability import tracing
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.prediction_log import PredictionLog
from raypath.components.serving.observability.request_context import current_request, may_use
from raypath.components.serving.protocol import Health
from raypath.components.serving.replica.model_manager import ModelManager
from raypath.components.serving.replica.rate_share import update_share
from raypath.components.serving.replica.registry_watcher import demote_rejected, read_plan, watch_registry
from raypath.components.serving.replica.reservation import max_tokens, tokens_per_byte
from raypath.components.serving.replica.shadow import ShadowTraffic
from raypath.components.serving.replica.status import health_status, replica_status
from raypath.components.serving.replica.tokenizing import TokenizerThread
from raypath.components.serving.spec import EndpointSpec
from raypath.components.tasks.catalog import task_type

log = logging.getLogger("ray.serve")
RETRY_SECONDS = 10.0
"""Seconds before a version that could not be fetched is tried again."""


@serve.deployment
@serve.ingress()
class Service:
    """One replica. Its `user_config` is a ReplicaPlan. swap: puts another version in service."""

    def __init__(self, spec: dict[str, Any], swap: Swap | None = None) -> None:
        self.spec, self.swap = EndpointSpec(**spec), swap
        reject_trailers()
        settings = self.spec.serve
        task = task_type(self.spec.task, self.spec.label_kind)
        separate = bool(settings.extra_models)
        self.models = ModelManager(
            self.spec.tracking,
            task,
            settings.threads,
            columns=self.spec.columns,
            separate_adapters=separate,
            tasks=self.spec.tasks,
            signing=Path(self.spec.signing) if self.spec.signing else None,
        )
        self.tasks: dict[str, asyncio.Task[None]] = {}
        """Background tasks by name."""
        self.auth: AuthMiddleware | None = None
        self.tokenizing = TokenizerThread(settings.max_queue_seconds)
        self.batcher: Batcher | None = None
        self.metrics = Metrics(self.spec.name)
        self.log = _prediction_log(self.spec, self.metrics)
        self.live = LiveTest(self.spec)
        self.shadow = ShadowTraffic(self.metrics, self.log, self.live)
        self.tracer = tracing.start(self.spec.name)

    def __serve_build_asgi_app__(self) -> Any:
        """Wrap the routes in the middlewares. A request passes the last one here first."""
        api = build_api(self)
        self.auth = self._with_auth(api) if self.spec.access else None
        settings = self.spec.serve
        app = LoadSheddingMiddleware(
            RequestLimitsMiddleware(self.auth or api), self._queue_seconds, settings.max_queue_seconds
        )
        cors = CorsMiddleware(app, settings.origins)
        return RequestLogMiddleware(cors, self.metrics, settings.log_requests, self.tracer)

    def _with_auth(self, app: FastAPI) -> AuthMiddleware:
        folder = Path(self.spec.access)
        usage = Path(self.spec.usage) if self.spec.usage else folder / "usage"
        # Network storage, which services on Kubernetes share, is too slow for a lock at every request.
        ledger = Ledger() if self.spec.poll_seconds else SharedLedger(usage / "limits")
        meter = UsageMeter(usage, f"{self.spec.name}-{os.getpid()}", model=self.spec.name, ledger=ledger)
        share = 1.0 if ledger.shared else 1 / self.spec.max_replicas
        most = self.spec.serve.max_open
        return AuthMiddleware(
            app,
            folder,
            meter,
            route_table(app),
            share=share,
            max_open=most,
            max_tokens=lambda scope: max_tokens(scope, self._loaded(), self.spec.serve),
            per_byte=lambda: tokens_per_byte(self._loaded()),
        )

    def _loaded(self) -> list[LoadedModel]:
        return [*self.models.active.values(), *self.models.pool.loaded.values()]

    def _queue_seconds(self) -> float:
        """Return the queued work: of the model and of the tokenizer."""
        return self.tokenizing.wait() + (self.batcher.wait() if self.batcher else 0.0)

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load the versions of a plan next to those in service, then swap; requests continue meanwhile.

        If a version cannot be loaded, the old one stays: an exception here would make Serve stop the replica.
        """
        if self.batcher is None:
            settings = self.spec.serve
            self.batcher = Batcher(settings.batch, settings.max_queue_seconds, self._cores(), self.metrics.batch)
            self.metrics.watch(self.batcher.waiting)
            self.metrics.start()
            if self.auth is not None and self.spec.max_replicas > 1 and not self.auth.meter.ledger.shared:
                self._start_task("share", update_share(self.auth.limiter, self.spec))
            if settings.decide:
                self._start_task("live", watch_live(self.spec.tracking, self.live, self.swap))
        plan = ReplicaPlan(**config)
        if self.spec.poll_seconds:
            plan = await self._watch(plan)
        await self._apply(plan)

    def _start_task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a background task, in place of an earlier one of this name."""
        if (before := self.tasks.pop(name, None)) is not None:
            before.cancel()
        self.tasks[name] = asyncio.create_task(work)

    async def _apply(self, plan: ReplicaPlan) -> bool:
        """Apply a plan; returns True if all its versions are loaded."""
        await self.models.apply(plan)
        self.metrics.versions({role: model.version for role, model in self.models.active.items()})
        self.shadow.set_version(self.live.set_plan(plan, self.models.active) or self.models.active.get(Role.SHADOW))
        faults = self.models.all_faults
        if self.spec.poll_seconds:
            await self._demote_rejected()
        elif any(not fault.rejected for fault in faults):
            self._start_task("retry", self._retry(plan))
        return not faults

    async def _demote_rejected(self) -> None:
        main = self.models.faults.get(Role.MAIN)
        faults = [*([main] if main else []), *self.models.model_faults.values()]
        await asyncio.to_thread(demote_rejected, self.spec, faults, self.models.version_of)

    async def _retry(self, plan: ReplicaPlan) -> None:
        """Apply a plan again, whose versions could not be fetched, unless another plan was applied meanwhile."""
        await asyncio.sleep(RETRY_SECONDS)
        if plan == self.models.plan:
            self.tasks.pop("retry", None)  # this task: the next one must not cancel it
            await self._apply(plan)

    async def _watch(self, plan: ReplicaPlan) -> ReplicaPlan:
        """Return the registry's plan, or `plan` if it cannot be read, and start to watch the registry."""
        try:
            plan = await asyncio.to_thread(read_plan, self.spec)
        except RaypathError as error:
            log.warning("the registry could not be read: %s", error.what)
        self._start_task("watch", watch_registry(self.spec, plan, self._apply))
        return plan

    def _cores(self) -> int:
        import torch

        return 1 if torch.cuda.is_available() else self.spec.serve.threads or torch.get_num_threads()

    def health(self) -> Health:
        """Return name, version and status of the main model."""
        main = self.models.main
        assert main is not None
        return Health(name=self.spec.name, version=main.version, status=health_status(self.models))

    async def status(self, model: str = "") -> dict[str, Any]:
        """Return the ReplicaStatus as a dict; called through Ray. model: an additional model that is loaded first."""
        if model and model != self.spec.name:
            with contextlib.suppress(KeyError, RaypathError):  # the status has the fault
                await self.models.additional(model)
        return replica_status(self.models, self.shadow.compared, self.metrics.rate(), self.live).model_dump()

    def model_names(self) -> list[str]:
        """Return the names of the served models that the current request may use, the main one first."""
        return [name for name in (self.spec.name, *self.spec.serve.extra_models) if may_use(name)]

    async def select_model(self, name: str | None = None, version: int = 0, stable: bool = False) -> LoadedModel:
        """Return the model version for a request.

        Args:
            name: The model; None takes the main one.
            version: The version; 0 takes any.
            stable: Never the canary, where results of two versions must not be mixed.

        Raises HTTP 403 or 404 for a model that the key is not for, 404 for an unknown model or version, 503 for a model
        that cannot be loaded.
        """
        if name is None and not may_use(self.spec.name):
            raise HTTPException(403, f"this key is not for model {self.spec.name}")
        if name is not None and name not in (names := self.model_names()):
            raise HTTPException(404, f"no model {name}; served models: {', '.join(names)}")
        current_request().requested_model = name or self.spec.name  # never a name that a client made up
        if name is None or name == self.spec.name:
            model = self.models.select(version, stable)
        else:
            model = await self._additional(name)
        if model is None or version not in (0, model.version):
            raise HTTPException(404, "this version is not in service")
        return model

    async def _additional(self, name: str) -> LoadedModel:
        before = self.models.model_faults.get(name)
        try:
            return await self.models.additional(name)
        except KeyError:
            raise HTTPException(404, f"no model {name}; served models: {', '.join(self.model_names())}") from None
        except RaypathError as error:
            if self.spec.poll_seconds and self.models.model_faults.get(name) is not before:
                await self._demote_rejected()
            log.warning("model %s cannot be loaded: %s", name, error.what)
            raise HTTPException(503, f"model {name} cannot be loaded; contact its operator") from None

    async def predict(self, model: LoadedModel, texts: list[str], usage: Usage | None = None) -> BaseModel:
        """Return the task's response, one prediction per text. Raises what `infer` raises."""
        predictions = model.task.predictions(await self.decode(model, texts, usage))
        return model.task.response(model=model.name, version=model.version, predictions=predictions)

    async def decode(self, model: LoadedModel, texts: list[str], usage: Usage | None = None) -> Array:
        """Return the task's decoded outputs, [N, K], log them and send shadow traffic. Raises what `infer` raises."""
        with self.live.serving(model):
            decoded = model.task.decode(await self.infer(model, texts, usage))
        request, logged = current_request(), False
        if self.log is not None:
            logged = self.log.add(model, decoded, texts, id=request.id, role=request.role, ms=request.ms)
        if model is self.models.main and self.batcher is not None:
            busy = self.batcher.wait() > 0
            self.shadow.send(self.infer, busy, texts, model, decoded, request.id if logged else None)
        return decoded

    async def infer(
        self, model: LoadedModel, texts: list[str], usage: Usage | None = None, engine: Any = None
    ) -> Array:
        """Return the raw outputs of an engine for each text, [N, outputs].

        Fills in `usage` with the work that is done, also if the request times out or its client leaves.

        engine: None takes the model's own. Raises QueueFull, AccessError 429 for tokens that the key's quota does not
        have, HTTP 422 for texts beyond the limits, 504 on timeout.
        """
        settings = self.spec.serve
        check_texts(texts, settings, "max_items" if engine is None else "max_embeddings")
        batcher, request, usage = self.batcher, current_request(), usage or Usage()
        assert batcher is not None
        role = Role.CANARY if model is self.models.active.get(Role.CANARY) else Role.MAIN
        request.served_by(model.name, model.version, role.value)
        spent = CoreSeconds()
        try:
            async with asyncio.timeout(settings.request_timeout):
                with self.tracer.span("tokenize", texts=len(texts)):
                    tokens, spent.total = await self.tokenizing.encode(model.tokenizer, texts)
                request.texts, request.tokens = len(texts), sum(map(len, tokens))
                usage.count(request.tokens)
                with self.tracer.span("model", tokens=request.tokens, waiting=batcher.waiting()[0]):
                    return await batcher.record(engine or model.engine, tokens, spent)
        except TimeoutError:
            # The tokens of a request that was not tokenized in time are estimated.
            usage.tokens = usage.tokens or sum(min(1 + len(text) // 4, model.metadata.max_length) for text in texts)
            detail = f"no response within {settings.request_timeout:g} seconds (serve.request_timeout)"
            raise HTTPException(504, detail) from None
        except QueueFull:
            usage.tokens = 0
            raise
        finally:
            usage.compute_seconds += spent.total


def _prediction_log(spec: EndpointSpec, metrics: Metrics) -> PredictionLog | None:
    if not spec.predictions:
        return None

    def count(outcome: str, rows: int) -> None:
        metrics.count(f"raypath_predictions_{outcome}", rows)

    settings = spec.serve
    return PredictionLog(
        Path(spec.predictions), str(os.getpid()), settings.log_predictions, settings.log_texts, count=count
    )
