"""Ray Serve deployment of models that predict: a replica serves HTTP, batches across requests and swaps models."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from ray import serve

from raypath.components.core.arrays import Array
from raypath.components.inference.dynamic_batching import Batcher, CoreSeconds, QueueFull
from raypath.components.serving.api.body import check_texts
from raypath.components.serving.api.routes import build_api
from raypath.components.serving.live.watcher import Swap
from raypath.components.serving.metering.usage import Usage
from raypath.components.serving.model_versions import LoadedModel, ReplicaPlan, Role
from raypath.components.serving.observability.metrics import Metrics
from raypath.components.serving.observability.prediction_log import PredictionLog
from raypath.components.serving.observability.request_context import current_request
from raypath.components.serving.replica.base import BaseService
from raypath.components.serving.replica.model_manager import ModelManager
from raypath.components.serving.replica.reservation import max_tokens, tokens_per_byte
from raypath.components.serving.replica.shadow import ShadowComparison, ShadowPredictions
from raypath.components.serving.spec import EndpointSpec
from raypath.components.tasks.catalog import task_type

T = TypeVar("T")


@serve.deployment
@serve.ingress()
class Service(BaseService[LoadedModel]):
    """One replica of a model that predicts. swap: puts another version in service."""

    def __init__(self, spec: dict[str, Any], swap: Swap | None = None) -> None:
        super().__init__(spec, swap)
        settings = self.spec.serve
        self.models = ModelManager[LoadedModel](
            self.spec.tracking,
            task_type(self.spec.task, self.spec.label_kind),
            settings.threads,
            columns=self.spec.columns,
            separate_adapters=bool(settings.extra_models),
            tasks=self.spec.tasks,
            signing=Path(self.spec.signing) if self.spec.signing else None,
        )
        self.batcher: Batcher | None = None
        self.log = _prediction_log(self.spec, self.metrics)
        self.shadow = ShadowPredictions(self.metrics, self.log, self.live)

    def _build_api(self) -> FastAPI:
        return build_api(self)

    def _max_tokens(self, scope: str) -> int:
        return max_tokens(scope, self._loaded(), self.spec.serve)

    def _per_byte(self) -> int:
        return tokens_per_byte(self._loaded())

    def _queue_seconds(self) -> float:
        """Return the queued work: of the model and of the tokenizer."""
        return self.tokenizing.wait() + (self.batcher.wait() if self.batcher else 0.0)

    def _check_models(self, stalled: float) -> None:
        if self.batcher is not None:
            self.batcher.check_health(stalled)

    def _start(self) -> None:
        settings = self.spec.serve
        self.batcher = Batcher(settings.batch, settings.max_queue_seconds, self._cores(), self.metrics.batch)
        self.metrics.watch(self.batcher.waiting)
        self._watch_live()

    def _swapped(self, plan: ReplicaPlan) -> None:
        self.shadow.set_version(self.live.set_plan(plan, self.models.active) or self.models.active.get(Role.SHADOW))

    def _compared(self) -> ShadowComparison | None:
        return self.shadow.compared

    def _cores(self) -> int:
        import torch

        return 1 if torch.cuda.is_available() else self.spec.serve.threads or torch.get_num_threads()

    async def read_texts(self, model: LoadedModel, size: int, work: Callable[[], T]) -> T:
        """Return what `work` reads of a request of `size` bytes, on a thread if it redacts many. Raises QueueFull."""
        return work() if model.task.redactor is None else (await self.tokenizing.run(size, work))[0]

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
            logged = self.log.add(
                model, decoded, texts, id=request.id, role=request.role, ms=request.ms, subject=request.subject
            )
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
