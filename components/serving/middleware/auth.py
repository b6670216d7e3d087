"""Who may come in: plain ASGI middleware that asks for a key, holds it to its limits and has its use metered.

A request without a valid key is answered before its body is read. Refusals are problems after RFC 9457
(application/problem+json) and repeat nothing of what was sent. The application finds in its scope

    raypath.key      the id of the key
    raypath.usage    a Usage, for it to fill in: tokens, compute_seconds, model
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from raypath.components.serving.api import errors as problems
from raypath.components.serving.metering.api_keys import AccessError, Key, KeyStore
from raypath.components.serving.metering.usage import Usage, UsageMeter
from raypath.components.serving.middleware.rate_limit import RateLimiter
from raypath.components.serving.observability.request_context import current_request

SCOPE_OF: Mapping[str, str] = {"/v1/embeddings": "embed"}
"""What a key must be for, by path; any other path takes `predict`."""
_CREDENTIALS = (b"authorization", b"x-api-key")


class AuthMiddleware:
    """Lets a request through to `app` if its key allows it.

    share: of a key's rate that this process grants: 1 / replicas, since each counts for itself
    """

    def __init__(
        self,
        app: Any,
        folder: Path,
        meter: UsageMeter,
        open_paths: Collection[str] = ("/healthz",),
        *,
        scopes: Mapping[str, str] = SCOPE_OF,
        share: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.keys = KeyStore(folder)
        self.meter = meter
        self.open_paths = frozenset(open_paths)
        self.scopes = dict(scopes)
        self.rates = RateLimiter(share)
        self.clock = clock

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, send)
        elif kind != "http":
            # Nothing here speaks over websockets, and nothing would count them.
            await send({"type": "websocket.close", "code": 1008})
        elif (path := _path(scope)) in self.open_paths:
            await self.app(scope, receive, send)
        else:
            await self._guarded(path, scope, receive, send)

    async def _guarded(self, path: str, scope: Any, receive: Any, send: Any) -> None:
        now = self.clock()
        try:
            key = self._admitted(path, scope, now)
        except AccessError as error:
            self.meter.record_rejected(error.key, now)
            await _refuse(error, scope, receive, send)
        else:
            await self._metered(key, now, scope, receive, send)

    def _admitted(self, path: str, scope: Any, now: float) -> Key:
        """The key of a request that may go on. Raises AccessError."""
        text = _credential(scope["headers"])
        if not text:
            raise AccessError(401, "a key is needed: `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        key = self.keys.check(text, self.scopes.get(path, "predict"), now)
        self.rates.take(key, now)
        self.meter.admit(key, now)
        return key

    async def _metered(self, key: Key, now: float, scope: Any, receive: Any, send: Any) -> None:
        usage = Usage()
        status = 500
        current_request().key = key.id

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # The key goes no further, so that nothing behind can log it.
        headers = [pair for pair in scope["headers"] if pair[0] not in _CREDENTIALS]
        try:
            inner = {**scope, "headers": headers, "raypath.key": key.id, "raypath.usage": usage}
            await self.app(inner, receive, noted)
        finally:
            usage.model = usage.model or current_request().asked
            self.meter.record(key, usage, status, now)


def _path(scope: Any) -> str:
    """The path below the application's own prefix, as its router sees it."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _credential(headers: Any) -> str:
    """The key that came with a request, or nothing."""
    bearer = plain = b""
    for name, value in headers:
        if name == b"authorization" and not bearer and value[:7].lower() == b"bearer ":
            bearer = value[7:].strip()
        elif name == b"x-api-key" and not plain:
            plain = value.strip()
    return (bearer or plain).decode("latin-1")


async def _refuse(error: AccessError, scope: Any, receive: Any, send: Any) -> None:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    if error.retry_after:
        headers["retry-after"] = f"{error.retry_after:.0f}"
    answer = problems.problem(error.status, error.reason, headers, path=problems.below(scope))
    await answer(scope, receive, send)
