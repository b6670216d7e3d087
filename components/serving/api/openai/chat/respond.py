"""Reading of requests, and responses that are complete or streamed; both end when the client leaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from pydantic_core import to_json

from raypath.components.serving.api.body import read_body
from raypath.components.serving.api.errors import BadRequest, read
from raypath.components.serving.api.openai.chat.choices import Delta
from raypath.components.serving.api.openai.chat.event_stream import CLIENT_GONE, ClientGone, EventStream, until_gone
from raypath.components.serving.api.openai.chat.requests import FORMS
from raypath.components.serving.api.openai.chat.responses import Complete
from raypath.components.serving.metering.usage import Usage

if TYPE_CHECKING:
    from raypath.components.serving.protocol import LanguageModelService

VALUES, DEPTH = 1 << 20, 64
"""JSON values and levels of a body: token ids of a prompt, schemas of tools."""
ERRORS = (400, 404, 408, 413, 415, 429, 503, 504)
Deltas = AsyncGenerator[Delta, None]
Events = Callable[[Delta, Deltas], AsyncGenerator[Any, None]]
"""Makes the events of a stream from the first delta and the others."""


async def read_request(request: Request, service: LanguageModelService, kind: type[Any]) -> Any:
    """Read and validate a body. Raises InvalidRequest and what `read_body` raises."""
    body = await read_body(request, service.spec.serve, VALUES, depth=DEPTH)
    return read(kind, body, *FORMS, status=400)


def check_size(size: int, service: LanguageModelService) -> None:
    """Raise BadRequest for a prompt with more characters than the service takes."""
    most = service.spec.serve.max_characters
    if size > most:
        raise BadRequest(f"the prompt has {size:,} characters; wanted at most {most:,} (serve.max_characters)")


def usage_of(request: Request) -> Usage:
    """Return the usage of a request, for it to be filled in."""
    return request.scope.get("raypath.usage") or Usage()


@contextmanager
def renamed(names: Mapping[str, str], more: str = "") -> Iterator[None]:
    """Name the field of a BadRequest as its request names it. more: appended to the detail of a renamed one."""
    try:
        yield
    except BadRequest as error:
        if error.param not in names:
            raise
        raise BadRequest(f"{error.detail}{more}", names[error.param], error.code) from None


async def respond(
    request: Request,
    service: LanguageModelService,
    found: Deltas,
    complete: Callable[[Sequence[Complete]], dict[str, Any]],
    events: Events | None = None,
    typed: bool = False,
) -> Response:
    """Return the response: complete, or the stream of `events`. typed: see `EventStream`.

    Errors before the first token are raised, also for a stream.
    """
    try:
        first = await until_gone(request.receive, anext(found))
        if events is not None:
            return EventStream(events(first, found), service.spec.serve.request_timeout, typed)
        choices = await until_gone(request.receive, _collect(first, found))
    except ClientGone:
        await found.aclose()
        return Response(status_code=CLIENT_GONE)
    return Response(to_json(complete(choices)), media_type="application/json")


async def _collect(first: Delta, rest: Deltas) -> list[Complete]:
    choices: dict[int, Complete] = {}
    async with aclosing(rest):
        choices.setdefault(first.index, Complete()).add(first)
        async for delta in rest:
            choices.setdefault(delta.index, Complete()).add(delta)
    return [choices[index] for index in sorted(choices)]
