"""Request context: id, model, version and sizes of the request that is being processed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass
from time import perf_counter

_current: ContextVar[RequestContext | None] = ContextVar("raypath.request", default=None)

_models: ContextVar[tuple[str, ...] | None] = ContextVar("raypath.models", default=None)
"""Models that the key of the current request may use; None for all."""
_sees: ContextVar[Callable[[str], bool] | None] = ContextVar("raypath.sees", default=None)
"""Tells which models exist for the tenant of the current request; None for all."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class RequestContext:
    """Facts about a request; the application fills them in."""

    id: str = ""
    began: float = 0.0
    """In `perf_counter` seconds."""
    key: str = ""
    """Id of the API key, not the key itself."""
    tenant: str = ""
    subject: str = ""
    """Person whom the request is about, from the header X-Subject-Id; never logged as it is."""
    requested_model: str = ""
    """The model that was selected, whether or not it returned a response."""
    model: str = ""
    version: int = 0
    role: str = ""
    """Role of the version: main, canary."""
    texts: int = 0
    tokens: int = 0
    generated: int = 0
    """Tokens of the response of a language model; `tokens` has those of the prompt as well."""
    cached: int = 0
    """Tokens of the prompt that came from the prefix cache."""
    first_ms: int = 0
    """Milliseconds from the beginning of the request to the first token of its response."""
    error: str = ""
    """Type of the exception that ended the request."""

    @property
    def ms(self) -> float:
        """Milliseconds since the request began; 0 outside of a request."""
        return (perf_counter() - self.began) * 1000 if self.began else 0.0

    def served_by(self, model: str, version: int, role: str = "main") -> None:
        """Set the version that serves the request."""
        self.model, self.version, self.role = model, version, role

    def fields(self) -> dict[str, str | int]:
        """Return the fields that are set, for the log and the trace."""
        names = (
            "texts",
            "tokens",
            "generated",
            "cached",
            "first_ms",
            "model",
            "version",
            "role",
            "key",
            "tenant",
            "error",
        )
        return {name: value for name in names if (value := getattr(self, name))}


def current_request() -> RequestContext:
    """Return the context of the current request; outside of a request, a new one that is not recorded."""
    return _current.get() or RequestContext()


@contextmanager
def request_scope(request: RequestContext) -> Iterator[None]:
    """Make a request the current one."""
    token = _current.set(request)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def models_scope(models: tuple[str, ...] | None, sees: Callable[[str], bool] | None = None) -> Iterator[None]:
    """Restrict the current request to these models, and to those that exist for its tenant; None allows all."""
    token, other = _models.set(models), _sees.set(sees)
    try:
        yield
    finally:
        _sees.reset(other)
        _models.reset(token)


def may_see(model: str) -> bool:
    """Return True if this model exists for the tenant of the current request."""
    sees = _sees.get()
    return sees is None or sees(model)


def may_use(model: str) -> bool:
    """Return True if the key of the current request is for this model, which exists for its tenant."""
    models = _models.get()
    return may_see(model) and (models is None or model in models)


def detached_context() -> Context:
    """Return a context without a request, for background tasks: `asyncio.create_task(..., context=...)`."""
    return Context()
