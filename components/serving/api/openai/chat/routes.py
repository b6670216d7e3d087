"""OpenAI-compatible generation: POST /v1/chat/completions and POST /v1/completions, also streamed.

A stream is server-sent events; an error after its first event is an event of its own, {"error": {...}}, and ends it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from raypath.components.serving.api.body import read_body
from raypath.components.serving.api.errors import BadRequest, read
from raypath.components.serving.api.openai.chat.choices import Choice, Delta, deltas
from raypath.components.serving.api.openai.chat.event_stream import CLIENT_GONE, ClientGone, EventStream, until_gone
from raypath.components.serving.api.openai.chat.prompts import (
    chat_prompt,
    completion_prompts,
    offered_tools,
    sampling,
)
from raypath.components.serving.api.openai.chat.requests import (
    FORMS,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
)
from raypath.components.serving.api.openai.chat.responses import ChatWriter, Complete, CompletionWriter, Writer
from raypath.components.serving.api.openapi import body_of, error_responses
from raypath.components.serving.metering.usage import Usage

if TYPE_CHECKING:
    from raypath.components.inference.generation.engine import SamplingSettings
    from raypath.components.serving.protocol import LanguageModelService

VALUES, DEPTH = 1 << 20, 64
"""JSON values and levels of a body: token ids of a prompt, schemas of tools."""
ERRORS = (400, 404, 408, 413, 415, 429, 503, 504)
Prepared = Sequence[tuple[list[int], "SamplingSettings"]]
REQUESTS = (ChatRequest, CompletionRequest)


def routes(service: LanguageModelService) -> APIRouter:
    """Build the routes of a service."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])
    more: dict[str, Any] = {"response_model": None, "responses": error_responses(*ERRORS)}

    @router.post("/chat/completions", openapi_extra=body_of(ChatRequest), **more)
    async def chat(request: Request) -> Response:
        """Generate the next message of a conversation."""
        given = await _read(request, service, ChatRequest)
        model = await service.select_model(given.model)
        size = sum(len(each.model_dump_json()) for each in given.messages)
        _check_size(size, service)
        top = given.top_logprobs or 0

        def prepare() -> Prepared:
            limit = given.max_completion_tokens or given.max_tokens
            prompt = chat_prompt(model.template, given)
            return sampling(given, model, [prompt], limit, service.spec.serve, top)

        form = model.template.call_form if offered_tools(model.template, given) else None
        prepared = await service.prepare(size, prepare)
        usage = _usage(request)
        choices = [Choice(n, model.template, given.stops, form) for n in range(len(prepared))]
        writer = ChatWriter(model, usage, top if given.logprobs else None)
        return await _respond(request, service, given, writer, deltas(service, model, prepared, choices, usage))

    @router.post("/completions", openapi_extra=body_of(CompletionRequest), **more)
    async def complete(request: Request) -> Response:
        """Continue a text."""
        given = await _read(request, service, CompletionRequest)
        model = await service.select_model(given.model)
        size = _length(given.prompt)
        _check_size(size, service)

        def prepare() -> Prepared:
            prompts = completion_prompts(model.template, given)
            return sampling(given, model, prompts, given.max_tokens, service.spec.serve, given.logprobs or 0)

        prepared = await service.prepare(size, prepare)
        usage = _usage(request)
        choices = [Choice(n, model.template, given.stops) for n in range(len(prepared))]
        writer = CompletionWriter(model, usage, given.logprobs)
        return await _respond(request, service, given, writer, deltas(service, model, prepared, choices, usage))

    return router


async def _read(request: Request, service: LanguageModelService, kind: type[Any]) -> Any:
    body = await read_body(request, service.spec.serve, VALUES, depth=DEPTH)
    return read(kind, body, *FORMS, status=400)


def _check_size(size: int, service: LanguageModelService) -> None:
    most = service.spec.serve.max_characters
    if size > most:
        raise BadRequest(f"the prompt has {size:,} characters; wanted at most {most:,} (serve.max_characters)")


def _length(prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(prompt)
    return sum(1 if isinstance(each, int) else len(each) for each in prompt)


def _usage(request: Request) -> Usage:
    return request.scope.get("raypath.usage") or Usage()


async def _respond(
    request: Request,
    service: LanguageModelService,
    given: GenerationRequest,
    writer: Writer,
    found: AsyncGenerator[Delta, None],
) -> Response:
    try:
        # Errors before the first token are responses of their own, also of a stream.
        first = await until_gone(request.receive, anext(found))
        if given.stream:
            events = _chunks(writer, first, found, given)
            return EventStream(events, service.spec.serve.request_timeout)
        choices = await until_gone(request.receive, _collect(first, found))
    except ClientGone:
        await found.aclose()
        return Response(status_code=CLIENT_GONE)
    return Response(to_json(writer.complete(choices)), media_type="application/json")


async def _collect(first: Delta, rest: AsyncGenerator[Delta, None]) -> list[Complete]:
    choices: dict[int, Complete] = {}
    async with aclosing(rest):
        choices.setdefault(first.index, Complete()).add(first)
        async for delta in rest:
            choices.setdefault(delta.index, Complete()).add(delta)
    return [choices[index] for index in sorted(choices)]


async def _chunks(
    writer: Writer, first: Delta, rest: AsyncGenerator[Delta, None], given: GenerationRequest
) -> AsyncGenerator[Any, None]:
    async with aclosing(rest):
        for chunk in writer.begin(given.choices):
            yield chunk
        yield writer.chunk(first)
        async for delta in rest:
            if delta.text or delta.finish or delta.calls or (delta.tokens and writer.top is not None):
                yield writer.chunk(delta)
    if given.includes_usage:
        yield writer.last()
