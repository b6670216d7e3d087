"""Ray Serve deployment of language models: a streaming engine for each version, with OpenAI's interface."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, HTTPException
from ray import serve

from raypath.components.core.errors import DataError
from raypath.components.inference.dynamic_batching import QueueFull
from raypath.components.inference.generation.async_engine import EngineFault
from raypath.components.inference.generation.vllm.options import VllmOptions
from raypath.components.serving.api.errors import BadRequest
from raypath.components.serving.api.language_routes import build_language_api
from raypath.components.serving.api.route_table import CHAT
from raypath.components.serving.control.autoscaling import METRIC
from raypath.components.serving.live.watcher import Swap
from raypath.components.serving.metering.usage import Usage
from raypath.components.serving.model_versions import LoadedLanguageModel, ReplicaPlan, Role
from raypath.components.serving.observability.request_context import current_request
from raypath.components.serving.replica.base import BaseService
from raypath.components.serving.replica.language.load import GenerationLoad
from raypath.components.serving.replica.language.loading import LanguageModelManager
from raypath.components.serving.replica.language.response_meter import ResponseMeter
from raypath.components.serving.replica.language.shadow import ShadowResponses
from raypath.components.serving.replica.shadow import ShadowComparison
from raypath.components.tasks.catalog import task_type

if TYPE_CHECKING:
    from raypath.components.inference.generation.engine import SamplingSettings
    from raypath.components.inference.generation.streaming_engine import Piece

T = TypeVar("T")
DRAIN_SECONDS = 0.2
"""Pause between two looks at a version that is out of service and still generates."""
log = logging.getLogger("ray.serve")


@serve.deployment
@serve.ingress()
class LanguageService(BaseService[LoadedLanguageModel]):
    """One replica of a language model. swap: puts another version in service."""

    scope = CHAT

    def __init__(self, spec: dict[str, Any], swap: Swap | None = None) -> None:
        super().__init__(spec, swap)
        settings = self.spec.serve
        self.models = LanguageModelManager(
            self.spec.tracking,
            task_type(self.spec.task, self.spec.label_kind),
            settings.threads,
            separate_adapters=bool(settings.extra_models) and not settings.merge_adapters,
            tasks=self.spec.tasks,
            signing=Path(self.spec.signing) if self.spec.signing else None,
        )
        self.models.vllm = VllmOptions(
            settings.tensor_parallel_size, settings.gpu_memory_share * min(settings.gpus or 1.0, 1.0)
        )
        self.load = GenerationLoad()
        self.shadow = ShadowResponses(self.metrics, self.live)
        self._known: list[LoadedLanguageModel] = []
        """Versions in service."""
        self._retired: list[LoadedLanguageModel] = []
        """Versions out of service that still generate."""

    def _build_api(self) -> FastAPI:
        return build_language_api(self)

    def _max_tokens(self, scope: str) -> int:
        return max((model.engine.engine.context for model in self._loaded()), default=0) if scope == CHAT else 0

    def _queue_seconds(self) -> float:
        """Return the queued work: of the tokenizer and of the engines."""
        return self.tokenizing.wait() + self.load.wait()

    def _start(self) -> None:
        self.metrics.watch(self._waiting)
        self._watch_live()

    def _waiting(self) -> tuple[int, int]:
        """Return the requests without a first token, and the tokens that wait; called at every flush of the metrics."""
        waiting = 0
        for model in [*self._known, *self._retired]:
            users = list(model.users)
            found = sum(each.is_waiting for each in users)
            waiting += found
            who = (model.name, str(model.version))
            self.metrics.gauge("raypath_running", len(users) - found, *who)
            self.metrics.gauge("raypath_waiting", found, *who)
            self.metrics.gauge("raypath_waiting_tokens", sum(each.waiting_tokens for each in users), *who)
            self.metrics.gauge("raypath_cache_use", model.engine.statistics().cache_use, *who)
        return waiting, self.load.tokens

    def _swapped(self, plan: ReplicaPlan) -> None:
        loaded = self._loaded()
        if (main := self.models.main) is not None:
            self.load.calibrate(main.pace)
            shadow = self.live.set_plan(plan, self.models.active) or self.models.active.get(Role.SHADOW)
            self.shadow.set_versions(main, shadow)
        for model in self._known:
            if not any(model is each for each in loaded):
                self._retired.append(model)
                self._start_task(f"retire {model.name} {model.version} {id(model)}", self._retire(model))
        self._known = loaded

    async def _retire(self, model: LoadedLanguageModel) -> None:
        """Close the engine of a version that is out of service, after its last response."""
        while model.users or model.requests or self.shadow.uses(model):
            await asyncio.sleep(DRAIN_SECONDS)
        self._retired.remove(model)
        for name in ("raypath_running", "raypath_waiting", "raypath_waiting_tokens", "raypath_cache_use"):
            self.metrics.gauge(name, 0.0, model.name, str(model.version))
        await model.engine.close()
        self.tasks = {name: task for name, task in self.tasks.items() if task is not asyncio.current_task()}

    async def select_model(
        self, name: str | None = None, version: int = 0, stable: bool = False
    ) -> LoadedLanguageModel:
        """Return the model version for a request, which is not closed before the request has ended."""
        found = await super().select_model(name, version, stable)
        found.requests.add(current_request())
        return found

    def _compared(self) -> ShadowComparison | None:
        return self.shadow.compared

    async def _additional(self, name: str) -> LoadedLanguageModel:
        found = await super()._additional(name)
        if self.models.plan is not None:
            self._swapped(self.models.plan)  # others may have made room for it
        return found

    def _check_models(self, stalled: float) -> None:
        for model in [*self._loaded(), *self._retired]:
            model.engine.check_health(stalled)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what the replica reports to Ray Serve's autoscaling, which calls this."""
        return {METRIC: float(self.load.tokens)}

    async def users(self) -> int:
        """Return the responses that are being generated or wait; called through Ray."""
        return sum(len(model.users) for model in [*self._known, *self._retired])

    async def prepare(self, size: int, work: Callable[[], T]) -> T:
        """Run a function that renders and tokenizes `size` characters: a long one on a thread. Raises QueueFull."""
        with self.tracer.span("tokenize", characters=size):
            return (await self.tokenizing.run(size, work))[0]

    async def generate(
        self,
        model: LoadedLanguageModel,
        prompt: Sequence[int],
        settings: SamplingSettings,
        usage: Usage,
        counted: int | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of a response, as they come; see `LanguageModelService`."""
        with self.live.serving(model):
            async with aclosing(self._generate(model, prompt, settings, usage, counted)) as pieces:
                try:
                    async for piece in pieces:
                        yield piece
                except GeneratorExit:  # the reader has what it wants, which is no failure
                    return

    async def _generate(
        self,
        model: LoadedLanguageModel,
        prompt: Sequence[int],
        settings: SamplingSettings,
        usage: Usage,
        counted: int | None,
    ) -> AsyncGenerator[Piece, None]:
        counted = len(prompt) if counted is None else counted
        role = Role.CANARY if model is self.models.active.get(Role.CANARY) else Role.MAIN
        current_request().served_by(model.name, model.version, role.value)
        if (seconds := self.load.wait(settings.max_new_tokens)) > self.spec.serve.max_queue_seconds:
            raise QueueFull(seconds)
        who = (model.name, str(model.version), role.value)
        meter = ResponseMeter(self.metrics, self.load, usage, who, self.spec.serve.threads or 1)
        model.users.append(meter)
        stream, timer, begun = None, None, False
        try:
            stream = model.engine.stream(prompt, settings, observe=meter.generated)
            meter.start(counted, len(prompt), settings.max_new_tokens)
            # Without the request's context, which a cancelled timer would keep until its time, and with it the version.
            seconds, loop = self.spec.serve.request_timeout, asyncio.get_running_loop()
            timer = loop.call_later(seconds, stream.expire, context=Context())
            async for piece in stream:
                meter.piece(piece)
                begun = True
                yield piece
        except TimeoutError:
            raise HTTPException(
                504, f"no complete response within {seconds:g} seconds (serve.request_timeout)"
            ) from None
        except DataError as error:
            # What follows in brackets may repeat a schema of the request.
            detail = error.what.partition(" (")[0] if settings.grammar else error.what
            param = "response_format" if settings.grammar else "top_logprobs" if settings.top_logprobs else ""
            raise BadRequest(detail, param) from None
        except EngineFault as error:
            log.error("%s version %s: %s", model.name, model.version, error.what)
            raise HTTPException(503, "the engine of the model failed; try again") from None
        finally:
            model.users.remove(meter)
            meter.end()
            if timer is not None:
                timer.cancel()
            if stream is not None:
                await stream.aclose()
            if begun and model is self.models.main:
                self.shadow.send(any(each.users for each in self._known), model, prompt, settings)
