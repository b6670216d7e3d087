"""The Serve application: one deployment that answers HTTP itself (api.py), batches across requests (batching.py) and
swaps models in place (versions.py)."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from ray import serve

from components.core.errors import RaypathError
from components.serving import tracing
from components.serving.access import Access
from components.serving.api import Health, build_api
from components.serving.batching import Batcher
from components.serving.documents import OPEN
from components.serving.following import follow, plan_now
from components.serving.limits import Door, Limits, check_texts
from components.serving.metrics import Metrics
from components.serving.observing import Observed, seen, unseen
from components.serving.prediction_log import PredictionLog
from components.serving.usage import Meter, Usage
from components.serving.versions import Compared, Loaded, Plan, Versions, describe
from components.tasks import task_type

log = logging.getLogger("ray.serve")
Array = np.ndarray[Any, Any]
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
    usage: str = ""
    """Folder that the meter writes to; "" takes one below `access`."""
    follow: float = 0.0
    """Seconds between two looks at the registry's aliases, which then say what is held; 0: a Plan alone does."""
    canary: str = ""
    """ALIAS:PERCENT of the version that answers some of the requests."""
    shadow: str = ""
    """Alias of the version that is asked too, and never heard."""
    also: tuple[str, ...] = ()
    """Names of other models, whose champions answer at /models/NAME."""
    log_requests: bool = False
    """Log every request, not only those that ended in an error of the server."""
    predictions: str = ""
    """Folder of the prediction log; "" keeps none."""
    share: float = 0.0
    """Of the requests, whose predictions are kept."""
    texts: bool = False
    """Keep their texts too."""
    options: dict[str, Any]
    """Of the Serve deployment."""

    @property
    def replicas(self) -> int:
        """Most that answer at a time."""
        most = self.options.get("autoscaling_config", {}).get("max_replicas", 1)
        return int(self.options.get("num_replicas", most))


def guarded(api: FastAPI, spec: Spec) -> Access:
    """The application behind keys. Without one only health answers, and the page that asks for a key."""
    folder = Path(spec.access)
    usage = Path(spec.usage) if spec.usage else folder / "usage"
    meter = Meter(usage, f"{spec.name}-{os.getpid()}", model=spec.name)
    return Access(api, folder, meter, OPEN, share=1 / spec.replicas)


@serve.deployment
@serve.ingress()
class Service:
    """One replica. `user_config` is a Plan."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = Spec(**spec)
        kind = task_type(self.spec.task, self.spec.label_kind)
        self.versions = Versions(self.spec.tracking, kind, self.spec.threads)
        self.compared: Compared | None = None
        self.comparing: set[asyncio.Task[None]] = set()
        self.following: asyncio.Task[None] | None = None
        self.tokens = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        self.batcher: Batcher | None = None
        self.metrics = Metrics(self.spec.name)
        self.log = _prediction_log(self.spec, self.metrics)
        tracing.start(self.spec.name)

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Load what is new beside what is in service, then swap; requests go on meanwhile.

        A version that cannot be loaded leaves the old one in service: raising would make Serve end the replica.
        """
        if self.batcher is None:
            limits = self.spec.limits
            self.batcher = Batcher(limits.batch, limits.patience, self._cores(), self.metrics.batch)
            self.metrics.watch(self.batcher.waiting)
            self.metrics.start()
        plan = Plan(**config)
        if self.spec.follow:
            plan = await self._follow(plan)
        await self._take(plan)

    async def _take(self, plan: Plan) -> bool:
        """Hold what the plan says; whether all of it is held now."""
        await self.versions.take(plan)
        self.metrics.versions({role: held.version for role, held in self.versions.roles()})
        shadow = self.versions.shadow
        if shadow is None or self.compared is None or self.compared.version != shadow.version:
            self.compared = Compared(shadow.version) if shadow else None
        return not self.versions.faults

    async def _follow(self, plan: Plan) -> Plan:
        """What the registry says now, `plan` where it says nothing; from here on it is asked again and again."""
        if self.following is not None:
            self.following.cancel()
        try:
            plan = await asyncio.to_thread(plan_now, self.spec)
        except RaypathError as error:
            log.warning("the registry was not heard: %s", error.what)
        self.following = asyncio.create_task(follow(self.spec, plan, self._take))
        return plan

    def _cores(self) -> int:
        import torch

        return 1 if torch.cuda.is_available() else self.spec.threads or torch.get_num_threads()

    def describe(self) -> dict[str, Any]:
        """The spec, for who wants to change one thing of it."""
        return self.spec.model_dump()

    def __serve_build_asgi_app__(self) -> Any:
        api: Any = build_api(self)
        if self.spec.access:
            api = guarded(api, self.spec)
        api = Door(api, lambda: self.batcher.wait() if self.batcher else 0.0, self.spec.limits.patience)
        return Observed(api, self.metrics, self.spec.log_requests)

    def health(self) -> Health:
        main = self.versions.main
        assert main is not None
        return Health(name=self.spec.name, version=main.version, **describe(self.versions, self.compared))

    def names(self) -> list[str]:
        """The models that may be asked for, the main one first."""
        return [self.spec.name, *self.spec.also]

    async def pick(self, name: str | None = None, version: int = 0, steady: bool = False) -> Loaded:
        """The version that answers a request for a model, the main model if none is named.

        version: no other will do; 0: any. steady: not the canary, where answers of two versions do not go together.
        Raises HTTP 404 for a model or a version that is not here, 503 for a broken one.
        """
        if name is None or name == self.spec.name:
            held = self.versions.held(version, steady)
        else:
            held = await self._other(name)
        if held is None or version not in (0, held.version):
            raise HTTPException(404, "no such version is in service here")
        return held

    async def _other(self, name: str) -> Loaded:
        try:
            return await self.versions.other(name)
        except KeyError:
            raise HTTPException(404, f"no model {name} here; there are {', '.join(self.names())}") from None
        except RaypathError as error:
            raise HTTPException(503, f"model {name} cannot be loaded: {error.what}") from None

    async def answer(self, model: Loaded, texts: list[str], usage: Usage | None = None) -> BaseModel:
        """The task's response, one prediction a text; raises what `recorded` raises."""
        predictions = model.task.answers(await self.decoded(model, texts, usage))
        return model.task.response(model=model.name, version=model.version, predictions=predictions)

    async def decoded(self, model: Loaded, texts: list[str], usage: Usage | None = None) -> Array:
        """What the task decodes of each text, [N, K]; `usage` is filled in. Raises what `recorded` raises."""
        decoded = model.task.decode(await self.recorded(model, texts, usage))
        if self.log is not None:
            now = seen()
            self.log.note(model, decoded, texts, id=now.id, role=now.role, ms=now.ms)
        if self.versions.shadow is not None and model is self.versions.main:
            self._shadow(texts, model, decoded)
        return decoded

    async def recorded(self, model: Loaded, texts: list[str], usage: Usage | None = None, engine: Any = None) -> Array:
        """What an engine, the model's own if none is given, makes of each text, [N, outputs]; `usage` is filled in.

        Raises Busy, HTTP 422 for texts beyond the limits, 504 for time.
        """
        check_texts(texts, self.spec.limits)
        batcher, now = self.batcher, seen()
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

    def _shadow(self, texts: list[str], model: Loaded, decoded: Array) -> None:
        """Ask the shadow too, when nobody waits for the model."""
        assert self.batcher is not None
        assert self.compared is not None
        if self.batcher.wait() or self.comparing:
            self.compared.skipped += 1
            self.metrics.count("raypath_shadow_skipped", 1, str(self.compared.version))
            return
        task = asyncio.create_task(self._compare(texts, model, decoded, self.compared), context=unseen())
        self.comparing.add(task)
        task.add_done_callback(self.comparing.discard)

    async def _compare(self, texts: list[str], model: Loaded, decoded: Array, compared: Compared) -> None:
        shadow = self.versions.shadow
        if shadow is None:
            return
        other = shadow.task.decode(await self.recorded(shadow, texts))
        ours, theirs = _predicted(model, decoded), _predicted(shadow, other)
        agreed = sum(a == b for a, b in zip(ours, theirs, strict=True))
        compared.answers += len(texts)
        compared.agreed += agreed
        self.metrics.count("raypath_shadow_compared", len(texts), str(compared.version))
        self.metrics.count("raypath_shadow_agreed", agreed, str(compared.version))

    async def _tokens(self, model: Loaded, texts: list[str]) -> list[list[int]]:
        """Token ids; more than a moment's work is done off the event loop."""
        if sum(map(len, texts)) < AT_ONCE:
            return model.encoder.encode(texts)
        return await asyncio.get_running_loop().run_in_executor(self.tokens, model.encoder.encode, texts)


def _prediction_log(spec: Spec, metrics: Metrics) -> PredictionLog | None:
    if not spec.predictions:
        return None

    def count(what: str, rows: int) -> None:
        metrics.count(f"raypath_predictions_{what}", rows)

    return PredictionLog(Path(spec.predictions), str(os.getpid()), spec.share, spec.texts, count=count)


def _predicted(model: Loaded, decoded: Array) -> list[tuple[Any, ...]]:
    """What is predicted of each text, without its scores."""
    columns = model.task.columns(decoded)
    return list(zip(*(columns[name].to_pylist() for name in columns if name.startswith("predicted")), strict=True))
