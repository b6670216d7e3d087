"""Usage and metrics of one response while it is generated."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from raypath.components.serving.observability.request_context import current_request

if TYPE_CHECKING:
    from raypath.components.inference.generation.streaming_engine import Piece
    from raypath.components.serving.metering.usage import Usage
    from raypath.components.serving.observability.metrics import Metrics
    from raypath.components.serving.replica.language.load import GenerationLoad


class ResponseMeter:
    """Meter of a response. who: model, version and role. cores: of the engine."""

    def __init__(
        self, metrics: Metrics, load: GenerationLoad, usage: Usage, who: tuple[str, str, str], cores: int = 1
    ) -> None:
        self.metrics, self.load, self.usage, self.who, self.cores = metrics, load, usage, who, cores
        self.request = current_request()
        self._began = self._first = self._last = 0.0
        self._prompt = self._generated = self._cached = 0
        self._finished = False

    def start(self, prompt: int) -> None:
        """Count the prompt, which the engine processes from now on."""
        self._began = self._last = perf_counter()
        self._prompt = prompt
        self.load.start()
        self.usage.tokens += prompt
        self.request.texts += 1
        self.request.tokens += prompt
        self.metrics.count("raypath_prompt_tokens", prompt, *self.who)

    def piece(self, piece: Piece) -> None:
        """Count a piece."""
        now, tokens = perf_counter(), len(piece.ids)
        cached = min(max(piece.cached - self._cached, 0), max(self._prompt - self._cached, 0))
        if not self._first and tokens:
            self._first = now
            self.metrics.observe("raypath_first_token_seconds", now - self._began, *self.who)
            self.request.first_ms = self.request.first_ms or round(self.request.ms)
            self.load.count(self._prompt)
        # Responses that are generated at a time share the engine.
        self.usage.compute_seconds += (now - self._last) * self.cores / max(self.load.open, 1)
        self._last, self._finished = now, piece.finish is not None
        self._generated += tokens
        self._cached += cached
        self.load.count(tokens)
        self.usage.tokens += tokens
        self.usage.generated_tokens += tokens
        self.usage.cached_tokens += cached
        self.request.tokens += tokens
        self.request.generated += tokens
        self.request.cached += cached

    def end(self) -> None:
        """End the response, whether or not it is complete."""
        if not self._began:
            return
        self.load.end(self._prompt + self._generated if self._first else 0)
        self.metrics.count("raypath_generated_tokens", self._generated, *self.who)
        self.metrics.count("raypath_cached_tokens", self._cached, *self.who)
        if self._generated > 1:
            seconds = (self._last - self._first) / (self._generated - 1)
            self.metrics.observe("raypath_token_seconds", seconds, *self.who)
        if not self._finished:
            self.metrics.count("raypath_aborted", 1, *self.who)
