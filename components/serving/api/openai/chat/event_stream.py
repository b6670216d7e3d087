"""Server-sent events, and work that ends when its client leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import HTTPException
from fastapi.responses import Response
from pydantic_core import to_json

from raypath.components.serving.api.errors import openai_error
from raypath.components.serving.observability.request_context import current_request

T = TypeVar("T")
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""A proxy passes events on as they come."""
CLIENT_GONE = 499
_log = logging.getLogger("ray.serve")


class ClientGone(Exception):
    """The client has closed its connection."""


async def until_gone(receive: Any, work: Awaitable[T]) -> T:
    """Await `work`; it is cancelled when the client leaves. Raises ClientGone then.

    Ray Serve cancels such a request itself; other servers do not.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Stream of events. An error becomes the last event; the stream of a client that leaves is closed.

    Args:
        seconds: longest time of the whole stream, for a client that does not read.
        typed: each event is named by its member `type`, as those of /v1/responses; otherwise `[DONE]` ends the stream.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Any, None], seconds: float, typed: bool = False) -> None:
        super().__init__(None, headers=HEADERS)
        self.events, self.seconds, self.typed = events, seconds, typed
        del self.headers["content-length"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with asyncio.timeout(self.seconds):
                await until_gone(receive, self._send_all(send))
        except (ClientGone, TimeoutError):
            return

    async def _send_all(self, send: Any) -> None:
        sent = 0

        async def event(value: Any) -> None:
            nonlocal sent
            sent += 1
            name = b"event: " + value["type"].encode() + b"\n" if self.typed else b""
            text = value if isinstance(value, bytes) else to_json(value)
            body = name + b"data: " + text + b"\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})

        try:
            async with aclosing(self.events) as events:
                async for each in events:
                    await event(each)
            if not self.typed:
                await event(b"[DONE]")
        except Exception as error:  # noqa: BLE001 - the status has been sent: the client learns of it from an event
            found = _error(error)
            # Clients raise an error for the member `error`, and the type error has those of the error itself.
            named = {"type": "error", "sequence_number": sent, **{n: found[n] for n in ("code", "message", "param")}}
            await event({**(named if self.typed else {}), "error": found})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _error(error: Exception) -> dict[str, Any]:
    if isinstance(error, HTTPException):
        current_request().error = f"HTTP {error.status_code}"
        return openai_error(error.status_code, str(error.detail))
    current_request().error = type(error).__name__
    _log.error("a stream ended with an error", exc_info=error)
    return openai_error(500, "an unexpected error ended the response; see the service's log")
