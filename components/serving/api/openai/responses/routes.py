"""OpenAI-compatible responses: POST /v1/responses, also streamed. Nothing is stored.

A request is converted to a chat request. Events of a stream have OpenAI's types; an error after the first one is an
event of the type error, and ends the stream.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from raypath.components.serving.api.openai.chat.respond import ERRORS, read_request, renamed, respond, usage_of
from raypath.components.serving.api.openai.chat.routes import chat_deltas, required_call
from raypath.components.serving.api.openai.responses.conversion import NAMES, chat_request
from raypath.components.serving.api.openai.responses.events import events
from raypath.components.serving.api.openai.responses.output import ResponseWriter
from raypath.components.serving.api.openai.responses.requests import ResponsesRequest
from raypath.components.serving.api.openapi import body_of, error_responses

if TYPE_CHECKING:
    from raypath.components.serving.protocol import LanguageModelService


def routes(service: LanguageModelService) -> APIRouter:
    """Build the routes of a service."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])
    more: dict[str, Any] = {"response_model": None, "responses": error_responses(*ERRORS)}

    @router.post("/responses", openapi_extra=body_of(ResponsesRequest), **more)
    async def create(request: Request) -> Response:
        """Generate the next message of a conversation, or calls of functions."""
        given = await read_request(request, service, ResponsesRequest)
        chat = chat_request(given)
        model = await service.select_model(given.model)
        usage = usage_of(request)
        with renamed(NAMES), required_call(chat):
            found = await chat_deltas(service, model, chat, usage)
            writer = ResponseWriter(model, usage, given)
            made = partial(events, writer) if given.stream else None
            return await respond(request, service, found, writer.complete, made, typed=True)

    return router
