"""Request context: the id, model, version and sizes of the request that is being answered."""

from __future__ import annotations

from contextvars import Context, ContextVar
from dataclasses import dataclass
from time import perf_counter

_current: ContextVar[RequestContext | None] = ContextVar("raypath.seen", default=None)


@dataclass(slots=True)
class RequestContext:
    """What is known of a request; the application fills it in."""

    id: str = ""
    began: float = 0.0
    """By perf_counter."""
    key: str = ""
    """Id of the key, not the key."""
    asked: str = ""
    """The model that was picked, whether it answered or not."""
    model: str = ""
    version: int = 0
    role: str = ""
    """Of the version: main, canary."""
    texts: int = 0
    tokens: int = 0
    error: str = ""
    """Kind of the exception that ended it."""

    @property
    def ms(self) -> float:
        """Since it began; 0 outside of a request."""
        return (perf_counter() - self.began) * 1000 if self.began else 0.0

    def answered_by(self, model: str, version: int, role: str = "main") -> None:
        """Note which version answers."""
        self.model, self.version, self.role = model, version, role

    def told(self) -> dict[str, str | int]:
        """What is known of the answer, without what is not."""
        told = {name: getattr(self, name) for name in ("texts", "tokens", "model", "version", "role", "key", "error")}
        return {name: value for name, value in told.items() if value}


def current_request() -> RequestContext:
    """The request under way in this task; outside of one something that nobody looks at."""
    return _current.get() or RequestContext()


def detached_context() -> Context:
    """Return a context without a request, for background tasks: `asyncio.create_task(..., context=...)`."""
    return Context()
