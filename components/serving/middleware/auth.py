"""ASGI middleware for authentication by API keys and OpenID Connect tokens, rate limiting and usage metering.

Requests without a valid key or token are rejected before the body is read. Errors are RFC 9457 problem details
(application/problem+json) and repeat nothing of the request. The application finds in its scope

    raypath.key      the id of the key
    raypath.holder   the key, without its text: role, tenant, limits
    raypath.usage    a Usage, for it to fill in: tokens, compute_seconds, model
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from raypath.components.serving.api import errors as problems
from raypath.components.serving.api.body import CLOSE
from raypath.components.serving.api.route_table import PAGES, UNCOUNTED, RouteTable, required_permission
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.holder import AccessError, Key
from raypath.components.serving.metering.roles import READ
from raypath.components.serving.metering.usage import Usage, UsageMeter
from raypath.components.serving.middleware.bearer_tokens import TokenVerifier
from raypath.components.serving.middleware.client_certificates import HEADERS, ClientCertificate, ClientCertificates
from raypath.components.serving.middleware.rate_limit import RateLimiter
from raypath.components.serving.observability.request_context import current_request, models_scope

_CREDENTIALS = (b"authorization", b"x-api-key", *HEADERS)


class AuthMiddleware:
    """Forward authenticated requests to `app`.

    Args:
        routes: Routes of `app`, which decide the permission that a request needs.
        share: Share of a key's rate limit that this process grants: 1 / replicas if each replica counts on its own.
        max_open: Maximum number of requests of a key, and of all keys of a tenant, that are processed at a time; 0 for
            no limit.
        max_tokens: Returns the maximum number of tokens of a request that needs this permission, for reservations.
        per_byte: Returns the maximum number of tokens for a byte of the body.
    """

    def __init__(
        self,
        app: Any,
        folder: Path,
        meter: UsageMeter,
        routes: RouteTable,
        *,
        share: float = 1.0,
        max_open: int = 0,
        max_tokens: Callable[[str], int] = lambda scope: 0,
        per_byte: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.keys = KeyStore(folder)
        self.tokens = TokenVerifier(folder)
        self.certificates = ClientCertificates(folder)
        self.meter = meter
        self.routes = routes
        self.limiter = RateLimiter(share)
        self.max_open = max_open
        self.max_tokens, self.per_byte = max_tokens, per_byte
        self.clock = clock
        self._open: Counter[str] = Counter()
        """Requests that are being processed, by key and by tenant."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, send)
        elif kind != "http":
            # There are no websocket routes, and their usage would not be metered.
            await send({"type": "websocket.close", "code": 1008})
        else:
            route = self.routes.find(problems.application_path(scope))
            required = required_permission(route)
            if route in PAGES and not self.keys.tenancy().sees(None, self.meter.model):
                required = READ  # of a tenant's model, which has a name and schemas of its own
            if required:
                await self._handle(route, required, scope, receive, send)
            else:
                with models_scope(None, partial(self.keys.tenancy().sees, None)):
                    await self.app(scope, receive, send)

    async def _handle(self, route: str | None, required: str, scope: Any, receive: Any, send: Any) -> None:
        text = _credential(scope["headers"])
        if is_token := TokenVerifier.is_token(text):
            await self.tokens.prepare(text)
        now = self.clock()
        estimate = 0 if route in UNCOUNTED else self._estimate(required, scope["headers"])
        try:
            check = self.tokens.check if is_token else partial(self.keys.check, now=now)
            certificate = self.certificates.find(scope["headers"], now)
            key = self._identify(text, check, certificate, required, now)
            self._admit(key, estimate, now)
        except AccessError as error:
            self.meter.record_rejected(error.key, now, self._default_model(error.key))
            limits = self._rate_headers(error.key) if error.key is not None else {}
            await _reject(error, limits, scope, receive, send)
        else:
            hidden = route in PAGES and not self._default_model(key)
            app = _not_found if route is None or hidden else self.app
            await self._forward(app, key, estimate, now, scope, receive, send)

    def _identify(
        self, text: str, check: Callable[..., Key], certificate: ClientCertificate | None, required: str, now: float
    ) -> Key:
        """Return the key of a request: of its text, or of its client certificate alone. Raises AccessError.

        check: returns the key of a text with a permission.
        """
        service = self.routes.scope
        if text:
            key = check(text, required, service=service)
            if key.certificate and (certificate is None or not certificate.is_of(key.certificate)):
                raise AccessError(401, "this key is bound to a client certificate, which this connection does not have")
            return key
        found = self.keys.check_certificate(certificate.is_of, required, now, service) if certificate else None
        if found is None:
            raise AccessError(401, "an API key is required: `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        return found

    def _admit(self, key: Key, estimate: int, now: float) -> None:
        """Count a request of a key. Raises AccessError 429 beyond its limits."""
        if self.max_open and max(self._open[who] for who in _holders(key)) >= self.max_open:
            reason = f"{self.max_open:,} requests of this key are being processed (serve.max_ongoing_per_key)"
            raise AccessError(429, f"{reason}; try again", key=key, retry_after=1)
        self.meter.admit(key, now, estimate, self.limiter)

    def _default_model(self, key: Key | None) -> str:
        """Return the main model for the usage of a request that names none; "" if it is another tenant's."""
        return self.meter.model if key is None or self.keys.tenancy().sees(key, self.meter.model) else ""

    def _estimate(self, required: str, headers: Any) -> int:
        """Return the most tokens that a request may have, by the length of its body."""
        length = next((value for name, value in headers if name == b"content-length"), b"")
        most = self.max_tokens(required)
        if length.isdigit():
            return min(int(length[:12]) * self.per_byte(), most)
        return most if any(name == b"transfer-encoding" for name, _ in headers) else 0

    async def _forward(
        self, app: Any, key: Key, estimate: int, now: float, scope: Any, receive: Any, send: Any
    ) -> None:
        usage = Usage(reserved=estimate, rated=bool(key.tokens_per_minute))
        if key.quota_tokens or usage.rated:
            usage.extend = partial(self._extend, key)
        status = 500
        request = current_request()
        request.key, request.tenant = key.id, key.tenant or ""

        async def send_and_record(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                limits = self._rate_headers(key)
                message["headers"] = [*message.get("headers", ()), *((k.encode(), limits[k].encode()) for k in limits)]
            await send(message)

        # The key is removed, so that the application cannot log it.
        headers = [pair for pair in scope["headers"] if pair[0] not in _CREDENTIALS]
        self._open.update(_holders(key))
        try:
            inner = {**scope, "headers": headers, "raypath.key": key.id, "raypath.usage": usage, "raypath.holder": key}
            with models_scope(key.models, partial(self.keys.tenancy().sees, key)):
                await app(inner, receive, send_and_record)
        except asyncio.CancelledError:
            status = 499 if status == 500 else status
            raise
        finally:
            self._open.subtract(_holders(key))
            usage.model = usage.model or request.requested_model
            self.meter.record(key, usage, status, now, self.limiter, self._default_model(key))

    def _extend(self, key: Key, usage: Usage, tokens: int) -> None:
        self.meter.extend(key, usage, tokens, self.clock(), self.limiter)

    def _rate_headers(self, key: Key) -> dict[str, str]:
        """Return the headers with what is left of the rates of a key."""
        if not (key.requests_per_minute or key.tokens_per_minute):
            return {}
        with self.meter.ledger.state(key.id) as state:
            return self.limiter.headers(key, state, self.clock())


def _holders(key: Key) -> tuple[str, ...]:
    """Return the names under which open requests of a key are counted."""
    return (key.id, f"tenant {key.tenant}") if key.tenant else (key.id,)


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    """Respond to a path without a route; the router, which might match it otherwise, does not receive it."""
    await problems.problem(404, "Not Found", CLOSE, problems.application_path(scope))(scope, receive, send)


def _credential(headers: Any) -> str:
    """Return the key in the headers, "" without one."""
    bearer = plain = b""
    for name, value in headers:
        if name == b"authorization" and not bearer and value[:7].lower() == b"bearer ":
            bearer = value[7:].strip()
        elif name == b"x-api-key" and not plain:
            plain = value.strip()
    return (bearer or plain).decode("latin-1")


async def _reject(error: AccessError, limits: dict[str, str], scope: Any, receive: Any, send: Any) -> None:
    # A body that is not read may never end.
    headers = limits | (dict(CLOSE) if scope.get("method") == "POST" else {})
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after:
        headers["retry-after"] = f"{error.retry_after:.0f}"
    response = problems.problem(error.status, error.reason, headers, path=problems.application_path(scope))
    await response(scope, receive, send)
