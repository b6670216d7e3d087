"""Calls of several requests: generators that yield requests and receive responses, with or without asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from raypath.components.core.errors import RaypathError
from raypath.components.serving.client.transport import Request

if TYPE_CHECKING:
    import httpx

Call = Generator[Request, "httpx.Response", Any]


def drive(call: Call, send: Callable[[Request], httpx.Response]) -> Any:
    """Send the requests of a call and return its result; an error of a request is raised in the call."""
    step: Callable[[], tuple[bool, Any]] = partial(_next, call, None)
    while True:
        more, found = step()
        if not more:
            return found
        try:
            step = partial(_next, call, send(found))
        except RaypathError as error:
            step = partial(_throw, call, error)


async def drive_async(call: Call, send: Callable[[Request], Awaitable[httpx.Response]]) -> Any:
    """Drive a call whose own work runs on a thread."""
    step: Callable[[], tuple[bool, Any]] = partial(_next, call, None)
    while True:
        more, found = await asyncio.to_thread(step)
        if not more:
            return found
        try:
            step = partial(_next, call, await send(found))
        except RaypathError as error:
            step = partial(_throw, call, error)


def _next(call: Call, response: Any) -> tuple[bool, Any]:
    try:
        return True, call.send(response)
    except StopIteration as end:
        return False, end.value


def _throw(call: Call, error: RaypathError) -> tuple[bool, Any]:
    try:
        return True, call.throw(error)
    except StopIteration as end:
        return False, end.value
