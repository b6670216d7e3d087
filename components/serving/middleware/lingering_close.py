"""Lingering close: read the rest of a request's body before the connection is closed.

An HTTP server that closes a connection with unread data resets it, and the client may lose the response. So a response
that closes the connection is sent in full; then what the client still sends is discarded; then the connection closes.
"""

from __future__ import annotations

import asyncio
from typing import Any

SECONDS = 5.0
"""Longest time that the rest of a body is read for."""


class LingeringClose:
    """`receive` and `send` of a request. After the application has returned, `finish` ends the response."""

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive, self._send = receive, send
        self._closes = self._held = self._complete = False

    async def receive(self) -> Any:
        """Pass a message on, and note the end of the body."""
        message = await self._receive()
        self._complete |= message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Any) -> None:
        """Pass a message on, but hold back the end of a response that closes the connection."""
        if message["type"] == "http.response.start":
            self._closes = any(
                name.lower() == b"connection" and value.lower() == b"close" for name, value in message["headers"]
            )
        elif self._closes and not self._complete and not message.get("more_body", False):
            self._held = True
            message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        """Discard the rest of the body, for at most SECONDS, and end the response."""
        if not self._held:
            return
        try:
            async with asyncio.timeout(SECONDS):
                while not self._complete:
                    await self.receive()
        except TimeoutError:
            pass
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
