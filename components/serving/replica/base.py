"""Parts that every replica has: its plan, the versions in service, API keys, health and status.

A deployment of Ray Serve extends it with the HTTP routes of its kind of model and with what runs the model.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, TypeVar

from fastapi import FastAPI, HTTPException

from raypath.components.core.errors import RaypathError
from raypath.components.models.base_models import original_base
from raypath.components.serving.api.route_table import PREDICT, routes_of
from raypath.components.serving.live.live_test import LiveTest
from raypath.components.serving.live.watcher import Swap, watch_live
from raypath.components.serving.metering.ledger import Ledger, SharedLedger
from raypath.components.serving.metering.usage import UsageMeter
from raypath.components.serving.middleware.auth import AuthMiddleware
from raypath.components.serving.middleware.cors import CorsMiddleware
from raypath.components.serving.middleware.request_limits import LoadSheddingMiddleware, RequestLimitsMiddleware
from raypath.components.serving.middleware.request_log import RequestLogMiddleware
from raypath.components.serving.middleware.strict_http import reject_trailers
from raypath.components.serving.model_versions import ReplicaPlan, Role, ServedVersion
from raypath.components.serving.observability import tracing
from raypath.components.serving.observability.certificates import watch_certificates
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.request_context import current_request, may_see, may_use
from raypath.components.serving.protocol import Health
from raypath.components.serving.replica.model_manager import ModelManager
from raypath.components.serving.replica.rate_share import update_share
from raypath.components.serving.replica.registry_watcher import demote_rejected, read_plan, watch_registry
from raypath.components.serving.replica.shadow import ShadowComparison
from raypath.components.serving.replica.status import health_status, replica_status
from raypath.components.serving.replica.tokenizing import TokenizerThread
from raypath.components.serving.spec import EndpointSpec

log = logging.getLogger("ray.serve")
RETRY_SECONDS = 10.0
"""Seconds before a version that could not be fetched is tried again."""
STALLED_SECONDS = 120.0
"""Seconds after which a batch, or a step of a language model, that has not ended is taken for one that never will; a
long prompt is read in one step."""
V = TypeVar("V", bound=ServedVersion)


class BaseService(Generic[V]):
    """One replica. Its `user_config` is a ReplicaPlan. swap: puts another version in service.

    A kind of service defines `_build_api`, `_queue_seconds`, `_check_models`, `_max_tokens`, `_per_byte`, and where it
    needs them `_start` and `_swapped`.
    """

    models: ModelManager[V]
    scope = PREDICT
    """Scope that the routes require."""

    def __init__(self, spec: dict[str, Any], swap: Swap | None = None) -> None:
        self.spec, self.swap = EndpointSpec(**spec), swap
        reject_trailers()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        """Background tasks by name."""
        self.auth: AuthMiddleware | None = None
        self.metrics = Metrics(self.spec.name)
        self.live = LiveTest(self.spec)
        self.tokenizing = TokenizerThread(self.spec.serve.max_queue_seconds)
        self.tracer = tracing.start(self.spec.name)
        self._started = False
        self._created = perf_counter()

    def __serve_build_asgi_app__(self) -> Any:
        """Wrap the routes in the middlewares. A request passes the last one here first."""
        api = self._build_api()
        self.auth = self._with_auth(api) if self.spec.access else None
        settings = self.spec.serve
        app = LoadSheddingMiddleware(
            RequestLimitsMiddleware(self.auth or api), self._queue_seconds, settings.max_queue_seconds
        )
        cors = CorsMiddleware(app, settings.origins)
        return RequestLogMiddleware(cors, self.metrics, settings.log_requests, self.tracer)

    def _build_api(self) -> FastAPI:
        """Build the routes."""
        raise NotImplementedError

    def _queue_seconds(self) -> float:
        """Return the queued work."""
        raise NotImplementedError

    def _max_tokens(self, scope: str) -> int:
        """Return the maximum number of tokens of a request that requires this scope."""
        raise NotImplementedError

    def _per_byte(self) -> int:
        """Return the maximum number of tokens that a byte of a request may stand for."""
        return 1

    def _start(self) -> None:
        """Prepare the event loop, before the first plan is applied."""

    def _swapped(self, plan: ReplicaPlan) -> None:
        """Adopt the versions that a plan has loaded."""

    def _watch_live(self) -> None:
        """Decide on a canary or shadow by live requests, where the endpoint is to."""
        if self.spec.serve.decide:
            self._start_task("live", watch_live(self.spec.tracking, self.live, self.swap))

    def _with_auth(self, app: FastAPI) -> AuthMiddleware:
        folder = Path(self.spec.access)
        usage = Path(self.spec.usage) if self.spec.usage else folder / "usage"
        # Network storage, which services on Kubernetes share, is too slow for a lock at every request.
        ledger = Ledger() if self.spec.poll_seconds else SharedLedger(usage / "key-limits")
        meter = UsageMeter(usage, f"{self.spec.name}-{os.getpid()}", model=self.spec.name, ledger=ledger)
        share = 1.0 if ledger.shared else 1 / self.spec.max_replicas
        return AuthMiddleware(
            app,
            folder,
            meter,
            routes_of(app, self.scope),
            share=share,
            max_open=self.spec.serve.max_open,
            max_tokens=self._max_tokens,
            per_byte=self._per_byte,
        )

    def _loaded(self) -> list[V]:
        return [*self.models.active.values(), *self.models.pool.loaded.values()]

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load the versions of a plan next to those in service, then swap; requests continue meanwhile.

        If a version cannot be loaded, the old one stays: an exception here would make Serve stop the replica.
        """
        if not self._started:
            self._started = True
            self._start()
            self.metrics.start()
            self._start_task("certificates", watch_certificates(self.metrics))
            if self.auth is not None and self.spec.max_replicas > 1 and not self.auth.meter.ledger.shared:
                self._start_task("share", update_share(self.auth.limiter, self.spec))
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
        began, first = perf_counter(), self.models.plan is None
        await self.models.apply(plan)
        self.metrics.gauge("raypath_load_seconds", perf_counter() - began)
        if first:
            self.metrics.gauge("raypath_start_seconds", perf_counter() - self._created)
        self.metrics.versions({role: model.version for role, model in self.models.active.items()})
        self._swapped(plan)
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

    async def check_health(self) -> None:
        """Raise Unavailable if a thread is stuck; Ray Serve, which calls this, then replaces the replica."""
        self.tokenizing.check_health(STALLED_SECONDS)
        self._check_models(STALLED_SECONDS)

    def _check_models(self, stalled: float) -> None:
        """Raise Unavailable if what runs the models failed, or has made no progress in `stalled` seconds."""
        raise NotImplementedError

    def health(self) -> Health:
        """Return name, version and status of the main model; "" for the name of one of another tenant."""
        main, name = self.models.main, self.spec.name
        assert main is not None
        return Health(
            name=name if may_see(name) else "", version=main.version, status=health_status(self.models, may_see)
        )

    async def status(self, model: str = "") -> dict[str, Any]:
        """Return the ReplicaStatus as a dict; called through Ray. model: an additional model that is loaded first."""
        if model and model != self.spec.name:
            with contextlib.suppress(KeyError, RaypathError):  # the status has the fault
                await self.models.additional(model)
        return replica_status(self.models, self._compared(), self.metrics.rate(), self.live).model_dump()

    def _compared(self) -> ShadowComparison | None:
        return None

    def model_names(self) -> list[str]:
        """Return the names of the served models that the current request may use, the main one first."""
        return [name for name in (self.spec.name, *self.spec.serve.extra_models) if may_use(name)]

    def parent(self, name: str) -> str | None:
        """Return the base of a served model, None where it is not known."""
        base = self.models.base_of(name)
        return original_base(base) or None

    async def select_model(self, name: str | None = None, version: int = 0, stable: bool = False) -> V:
        """Return the model version for a request.

        Args:
            name: The model; None takes the main one.
            version: The version; 0 takes any.
            stable: Never the canary, where results of two versions must not be mixed.

        Raises HTTP 403 or 404 for a model that the key is not for, 404 for an unknown model or version, or a tenant's
        to another, 503 for a model that cannot be loaded.
        """
        if name is None and not may_see(self.spec.name):
            raise HTTPException(404, f"no model at this path; served models: {', '.join(self.model_names())}")
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

    async def _additional(self, name: str) -> V:
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
