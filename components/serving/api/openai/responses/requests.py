"""Requests of /v1/responses, in OpenAI's form. Other fields are ignored, as for chat completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from raypath.components.serving.api.openai.chat.requests import (
    TOOLS,
    Bounded,
    Content,
    NamedFunction,
    Open,
    Stop,
)


class InputMessage(Open):
    """A message. developer: as system."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class InputCall(Open):
    """Call of a function in an earlier response."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class InputResult(Open):
    """Result of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content


class OtherItem(Open):
    """Item of another type. reasoning is left out; others are rejected."""

    type: str


def _item(given: Any) -> str:
    kind = given.get("type", "message") if isinstance(given, dict) else "message"
    known = {"message": "message", "function_call": "call", "function_call_output": "result"}
    return known.get(kind, "other") if isinstance(kind, str) else "other"


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputCall, Tag("call")]
    | Annotated[InputResult, Tag("result")]
    | Annotated[OtherItem, Tag("other")],
    Discriminator(_item),
]


def _input(given: Any) -> str:
    return "items" if isinstance(given, list) else "text"


Input = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[Item], Tag("items")],
    Discriminator(_input),
]


class TextFormat(Open):
    """Form of the text."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextConfig(Open):
    """Settings of the text."""

    format: TextFormat | None = None


class ResponseTool(Open):
    """Function that the model may call. type: function; others are rejected."""

    type: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedChoice(NamedFunction):
    """Function that the model has to call."""

    type: Literal["function"]


def _choice(given: Any) -> str:
    return "word" if isinstance(given, str) else "tool"


ResponseToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")] | Annotated[NamedChoice, Tag("tool")],
    Discriminator(_choice),
]


class ResponsesRequest(Open):
    """A request for a response. Nothing is stored: `store` is ignored."""

    model: str = Field(max_length=256)
    input: Input
    instructions: str | None = None
    """System message before the input."""
    max_output_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    """None is 1; 0 is greedy decoding."""
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[str] | None = None
    """message.output_text.logprobs returns log-probabilities."""
    text: TextConfig | None = None
    tools: Annotated[list[ResponseTool], Field(max_length=TOOLS)] | None = None
    tool_choice: ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    """Returned with the response."""
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    background: bool | None = None
    # Settings of chat completions that OpenAI's responses do not have.
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    presence_penalty: Bounded | None = None
    frequency_penalty: Bounded | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None
    stop: Stop | None = None
