"""OpenAI-compatible generation: POST /v1/chat/completions and POST /v1/completions, also streamed.

A stream is server-sent events; an error after its first event is an event of its own, {"error": {...}}, and ends it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from raypath.components.privacy.output_filter import output_filter
from raypath.components.serving.api.openai.chat.choices import Choice, Delta, deltas
from raypath.components.serving.api.openai.chat.prompts import (
    chat_prompt,
    completion_prompts,
    offered_tools,
    requires_call,
    sampling,
)
from raypath.components.serving.api.openai.chat.requests import ChatRequest, CompletionRequest, GenerationRequest
from raypath.components.serving.api.openai.chat.respond import (
    ERRORS,
    Deltas,
    check_size,
    read_request,
    renamed,
    respond,
    usage_of,
)
from raypath.components.serving.api.openai.chat.responses import ChatWriter, CompletionWriter, Writer
from raypath.components.serving.api.openapi import body_of, error_responses

if TYPE_CHECKING:
    from raypath.components.inference.generation.engine import SamplingSettings
    from raypath.components.serving.metering.usage import Usage
    from raypath.components.serving.model_versions import LoadedLanguageModel
    from raypath.components.serving.protocol import LanguageModelService

Prepared = Sequence[tuple[list[int], "SamplingSettings"]]
REQUESTS = (ChatRequest, CompletionRequest)


def routes(service: LanguageModelService) -> APIRouter:
    """Build the routes of a service."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])
    more: dict[str, Any] = {"response_model": None, "responses": error_responses(*ERRORS)}

    @router.post("/chat/completions", openapi_extra=body_of(ChatRequest), **more)
    async def chat(request: Request) -> Response:
        """Generate the next message of a conversation."""
        given = await read_request(request, service, ChatRequest)
        model = await service.select_model(given.model)
        usage = usage_of(request)
        with required_call(given):
            found = await chat_deltas(service, model, given, usage)
            writer = ChatWriter(model, usage, (given.top_logprobs or 0) if given.logprobs else None)
            return await _respond(request, service, given, writer, found)

    @router.post("/completions", openapi_extra=body_of(CompletionRequest), **more)
    async def complete(request: Request) -> Response:
        """Continue a text."""
        given = await read_request(request, service, CompletionRequest)
        model = await service.select_model(given.model)
        size = _length(given.prompt)
        check_size(size, service)

        def prepare() -> Prepared:
            prompts = completion_prompts(model.template, given, model.task.redactor)
            return sampling(given, model, prompts, given.max_tokens, service.spec.serve, given.logprobs)

        prepared = await service.prepare(size, prepare)
        usage = usage_of(request)
        how = service.spec.serve.filter_output
        choices = [Choice(n, model.template, given.stops, guard=output_filter(how)) for n in range(len(prepared))]
        writer = CompletionWriter(model, usage, given.logprobs)
        return await _respond(request, service, given, writer, deltas(service, model, prepared, choices, usage))

    return router


async def chat_deltas(
    service: LanguageModelService, model: LoadedLanguageModel, given: ChatRequest, usage: Usage
) -> Deltas:
    """Return the deltas of all choices of a chat request, which are generated as they are read. Raises BadRequest."""
    size = sum(len(each.model_dump_json()) for each in given.messages)
    check_size(size, service)

    def prepare() -> Prepared:
        limit = given.max_completion_tokens or given.max_tokens
        prompt = chat_prompt(model.template, given, model.task.redactor)
        return sampling(
            given, model, [prompt], limit, service.spec.serve, (given.top_logprobs or 0) if given.logprobs else None
        )

    form = model.template.call_form if offered_tools(model.template, given) else None
    prepared = await service.prepare(size, prepare)
    calls: dict[str, Any] = {"forced": requires_call(given), "single": given.parallel_tool_calls is False}
    how = service.spec.serve.filter_output
    choices = [
        Choice(n, model.template, given.stops, form, guard=output_filter(how), **calls) for n in range(len(prepared))
    ]
    return deltas(service, model, prepared, choices, usage)


def required_call(given: ChatRequest) -> Any:
    """Context in which a schema that the engine does not take is that of the call that the request requires."""
    names = {"response_format": "tool_choice"} if requires_call(given) else {}
    return renamed(names, ", which tool_choice needs; wanted auto or none")


def _length(prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(prompt)
    return sum(1 if isinstance(each, int) else len(each) for each in prompt)


async def _respond(
    request: Request, service: LanguageModelService, given: GenerationRequest, writer: Writer, found: Deltas
) -> Response:
    events = partial(_chunks, writer, given) if given.stream else None
    return await respond(request, service, found, writer.complete, events)


async def _chunks(writer: Writer, given: GenerationRequest, first: Delta, rest: Deltas) -> AsyncGenerator[Any, None]:
    async with aclosing(rest):
        for chunk in writer.begin(given.choices):
            yield chunk
        yield writer.chunk(first)
        async for delta in rest:
            if delta.text or delta.finish or delta.calls or (delta.tokens and writer.top is not None):
                yield writer.chunk(delta)
    if given.includes_usage:
        yield writer.last()
