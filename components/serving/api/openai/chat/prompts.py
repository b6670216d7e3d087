"""Prompts and sampling settings of requests. What a request cannot have is rejected with 400, as OpenAI does."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raypath.components.core.conversations import Message, Tool, ToolCall
from raypath.components.core.errors import DataError
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.serving.api.errors import BadRequest
from raypath.components.serving.api.openai.chat.requests import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    NamedTool,
)
from raypath.components.serving.params import ServeParams

if TYPE_CHECKING:
    from raypath.components.models.chat_template import ChatTemplate
    from raypath.components.privacy.redactor import Redactor
    from raypath.components.serving.model_versions import LoadedLanguageModel

JSON_OBJECT = '{"type": "object"}'
"""Schema of the response format json_object."""


def chat_prompt(template: ChatTemplate, given: ChatRequest, redactor: Redactor | None = None) -> list[int]:
    """Return the token ids of a conversation, up to the start of the response. Raises BadRequest.

    redactor: of personal data in the messages, for a model whose training data was redacted.
    """
    messages, tools = [_message(each) for each in given.messages], offered_tools(template, given)
    if redactor is not None:
        messages = list(redactor.messages(messages))
    if template.call_form is None and any(message.get("tool_calls") for message in messages):
        raise BadRequest("this model's chat template has no place for calls of tools", "messages")
    try:
        return template.encode_prompt(messages, tools, _lead(template, given))
    except DataError as error:
        raise BadRequest(error.what.replace("chat template of the base", "model's chat template"), "messages") from None


def offered_tools(template: ChatTemplate, given: ChatRequest) -> list[Tool]:
    """Return the tools that the model may call. Raises BadRequest for a model that cannot."""
    choice = given.tool_choice
    if not given.tools:
        if choice not in (None, "none", "auto"):
            raise BadRequest("tool_choice names a tool, and the request has no tools", "tool_choice")
        return []
    if choice == "none":
        return []
    if not template.takes_tools or template.call_form is None:
        raise BadRequest("this model's chat template has no place for tools", "tools")
    if isinstance(choice, NamedTool) and choice.function.name not in (tool.function.name for tool in given.tools):
        raise BadRequest("tool_choice names a function that is not among the tools", "tool_choice")
    return [tool.model_dump(exclude_none=True) for tool in given.tools]


def requires_call(given: ChatRequest) -> bool:
    """Return True for a request whose response is a call of a tool."""
    return bool(given.tools) and (given.tool_choice == "required" or isinstance(given.tool_choice, NamedTool))


def _lead(template: ChatTemplate, given: ChatRequest) -> str:
    return template.call_form.lead if requires_call(given) and template.call_form is not None else ""


def _call_grammar(template: ChatTemplate, given: ChatRequest) -> str:
    """Return the JSON schema of the call that a request requires."""
    assert template.call_form is not None
    choice = given.tool_choice
    named = choice.function.name if isinstance(choice, NamedTool) else ""
    functions = [tool.function for tool in given.tools or () if named in ("", tool.function.name)]
    return json.dumps(template.call_form.schema({each.name: each.parameters for each in functions}))


def completion_prompts(
    template: ChatTemplate, given: CompletionRequest, redactor: Redactor | None = None
) -> list[list[int]]:
    """Return the token ids of each prompt; texts are redacted by `redactor`. Raises BadRequest."""
    prompt: Any = given.prompt
    if given.suffix:
        raise BadRequest("suffix: this model does not fill in the middle", "suffix")
    if given.echo:
        raise BadRequest("echo is not supported; wanted false", "echo")
    if given.best_of not in (None, given.choices):
        raise BadRequest("best_of is not supported; wanted the same number as n", "best_of")
    several = isinstance(prompt, list) and isinstance(prompt[0], list | str)
    given_prompts = prompt if several else [prompt]
    if redactor is not None:
        if not all(isinstance(each, str) for each in given_prompts):
            raise BadRequest("token ids, of which this model cannot redact personal data; wanted texts", "prompt")
        given_prompts = redactor.texts(given_prompts)
    found = [template.encode_text(each) if isinstance(each, str) else list(each) for each in given_prompts]
    most = template.vocabulary
    for number, ids in enumerate(found):
        if not ids:
            raise BadRequest(f"prompt {number} is empty; wanted at least one token", "prompt")
        if max(ids) >= most:
            raise BadRequest(f"prompt {number} has a token id beyond the vocabulary of {most:,}", "prompt")
    return found


def sampling(
    given: GenerationRequest,
    model: LoadedLanguageModel,
    prompts: Sequence[list[int]],
    limit: int | None,
    settings: ServeParams,
    top: int | None = None,
) -> list[tuple[list[int], SamplingSettings]]:
    """Return prompt and settings of each choice: `n` for each prompt, one after the other. Raises BadRequest.

    limit: most tokens of a response that the request names. top: most probable tokens to return with each, None for no
    log-probabilities.
    """
    _check_supported(given)
    if settings.filter_output != "off" and top is not None:
        raise BadRequest("log-probabilities name tokens that serve.filter_output replaces; leave them out", "logprobs")
    if len(prompts) * given.choices > settings.max_choices:
        detail = (
            f"{len(prompts) * given.choices:,} responses; wanted at most {settings.max_choices} (serve.max_choices)"
        )
        raise BadRequest(detail, "n")
    chosen = _chosen(given) | {"stop": frozenset(model.template.end_ids)}
    chosen |= {"logprobs": top is not None, "top_logprobs": top or 0}
    chosen["grammar"] = _grammar(given, model.template)
    seed = given.seed if given.seed is not None else secrets.randbits(32)
    made = []
    for prompt in prompts:
        most = _most_tokens(len(prompt), model.engine.engine.context, limit, settings.max_new_tokens)
        for choice in range(given.choices):
            seeded = chosen | {"seed": (seed + choice) % (1 << 63), "max_new_tokens": most}
            made.append((prompt, SamplingSettings(**seeded)))
    return made


def _most_tokens(prompt: int, context: int, limit: int | None, default: int) -> int:
    if prompt >= context:
        detail = f"the prompt has {prompt:,} tokens, and the model takes {context:,} with the response"
        raise BadRequest(detail, "messages", "context_length_exceeded")
    if limit is not None and prompt + limit > context:
        detail = f"{limit:,} tokens of response and {prompt:,} of the prompt are more than the {context:,} of the model"
        raise BadRequest(detail, "max_tokens", "context_length_exceeded")
    return limit or min(default, context - prompt)


def _chosen(given: GenerationRequest) -> dict[str, Any]:
    """Return the settings that have another name or default than the engine's."""
    temperature = 1.0 if given.temperature is None else given.temperature
    found: dict[str, Any] = {"temperature": 0.0 if given.top_p == 0 else temperature}
    found["top_p"], found["top_k"] = given.top_p or 1.0, max(given.top_k or 0, 0)
    found["min_p"], found["repetition_penalty"] = given.min_p or 0.0, given.repetition_penalty or 1.0
    found["presence_penalty"], found["frequency_penalty"] = (
        given.presence_penalty or 0.0,
        given.frequency_penalty or 0.0,
    )
    return found


def _grammar(given: GenerationRequest, template: ChatTemplate) -> str:
    """Return the JSON schema that the response follows, "" for none."""
    if not isinstance(given, ChatRequest):
        return ""
    if requires_call(given):
        return _call_grammar(template, given)
    form = given.response_format
    if form is None or form.type == "text":
        return ""
    if form.type == "json_object":
        return JSON_OBJECT
    if form.json_schema is None or form.json_schema.schema_ is None:
        raise BadRequest("response_format has no json_schema.schema", "response_format")
    return json.dumps(form.json_schema.schema_)


def _check_supported(given: GenerationRequest) -> None:
    """Raise BadRequest for fields that would change the response in a way that is not supported."""
    if given.stream_options is not None and not given.stream:
        raise BadRequest("stream_options needs stream=true", "stream_options")
    if given.logit_bias:
        raise BadRequest("logit_bias is not supported", "logit_bias")
    if isinstance(given, ChatRequest):
        if given.functions:
            raise BadRequest("functions is not supported; wanted tools", "functions")
        if given.modalities and given.modalities != ["text"]:
            raise BadRequest("this model writes text only", "modalities")
        if given.top_logprobs and not given.logprobs:
            raise BadRequest("top_logprobs needs logprobs=true", "top_logprobs")


def _message(given: ChatMessage) -> Message:
    """Convert a message. Raises BadRequest for images and other parts."""
    content = given.content if isinstance(given.content, str) else _joined(given)
    made: Message = {"role": "system" if given.role == "developer" else given.role, "content": content}
    if given.name is not None:
        made["name"] = given.name
    if given.role == "assistant":
        if given.tool_calls:
            made["tool_calls"] = [_call(each.model_dump()) for each in given.tool_calls]
        if given.reasoning_content:
            made["reasoning_content"] = given.reasoning_content
    if given.role == "tool" and given.tool_call_id is not None:
        made["tool_call_id"] = given.tool_call_id
    return made


def _call(given: dict[str, Any]) -> ToolCall:
    return {"id": given["id"], "type": "function", "function": given["function"]}


def _joined(given: ChatMessage) -> str:
    parts = given.content if isinstance(given.content, list) else []
    if any(part.type != "text" for part in parts):
        raise BadRequest("this model reads text only", "messages")
    return "".join(part.text or "" for part in parts)
