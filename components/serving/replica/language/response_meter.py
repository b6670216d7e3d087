"""Usage and metrics of one response while it is generated."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from raypath.components.serving.observability.request_context import current_request

if TYPE_CHECKING:
    from raypath.components.inference.generation.streaming_engine import Piece
    from raypath.components.serving.metering.usage import Usage
    from raypath.components.serving.observability.metrics import Metrics
    from raypath.components.serving.replica.language.load import GenerationLoad, PendingResponse


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
        self._pending: PendingResponse | None = None

    @property
    def is_waiting(self) -> bool:
        """True before the first token."""
        return self._pending is None or not self._pending.is_read

    @property
    def waiting_tokens(self) -> int:
        """Tokens that the response waits for; see `GenerationLoad.waiting`."""
        return self.load.waiting(self._pending) if self._pending is not None else 0

    def start(self, prompt: int, length: int, limit: int) -> None:
        """Count the prompt, which the engine processes from now on.

        prompt: its tokens that count as used. length: all of them. limit: most tokens of the response.
        """
        self._began = self._last = perf_counter()
        self._prompt = prompt
        self._pending = self.load.start(length, limit)
        self.usage.tokens += prompt
        self.request.texts += 1
        self.request.tokens += prompt
        self.metrics.count("raypath_prompt_tokens", prompt, *self.who)

    def generated(self, piece: Piece) -> None:
        """Count a piece as work that was done, whether or not the client reads it."""
        if self._pending is not None:
            self.load.count(self._pending, len(piece.ids), piece.cached)
            if piece.finish is not None:
                self.load.end(self._pending)

    def piece(self, piece: Piece) -> None:
        """Count a piece that is sent to the client."""
        now, tokens = perf_counter(), len(piece.ids)
        cached = min(max(piece.cached - self._cached, 0), max(self._prompt - self._cached, 0))
        if not self._first and tokens:
            self._first = now
            self.metrics.observe("raypath_first_token_seconds", now - self._began, *self.who)
            self.request.first_ms = self.request.first_ms or round(self.request.ms)
        # Responses that are generated at a time share the engine.
        self.usage.compute_seconds += (now - self._last) * self.cores / max(self.load.open, 1)
        self._last, self._finished = now, piece.finish is not None
        self._generated += tokens
        self._cached += cached
        self.usage.tokens += tokens
        self.usage.generated_tokens += tokens
        self.usage.cached_tokens += cached
        self.request.tokens += tokens
        self.request.generated += tokens
        self.request.cached += cached

    def end(self) -> None:
        """End the response, whether or not it is complete."""
        if self._pending is None:
            return
        self.load.end(self._pending)
        self.metrics.count("raypath_generated_tokens", self._generated, *self.who)
        self.metrics.count("raypath_cached_tokens", self._cached, *self.who)
        if self._generated > 1:
            seconds = (self._last - self._first) / (self._generated - 1)
            self.metrics.observe("raypath_token_seconds", seconds, *self.who)
        if not self._finished:
            self.metrics.count("raypath_aborted", 1, *self.who)
