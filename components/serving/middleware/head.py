"""HEAD requests: every route that takes GET takes HEAD too, as HTTP requires (RFC 9110, 9.1)."""

from __future__ import annotations

from typing import Any


class HeadMiddleware:
    """Forward HEAD to `app` as GET, and drop the body of the response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Any) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"}, receive, send_without_body)
