"""Requests of chat and text completions, in OpenAI's form.

Fields that are not here are ignored, as OpenAI's clients send new ones with every release; those that would change the
response in a way that is not supported are rejected (`prompts.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

STOPS = 16
"""Most stop strings."""
TOOLS = 128
"""Most tools of a request."""
Bounded = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Id = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]
Ids = Annotated[list[Id], Field(min_length=1, fail_fast=True)]


class Open(BaseModel):
    """Object whose unknown members are ignored."""

    model_config = ConfigDict(extra="ignore")


class ContentPart(Open):
    """Part of a message; only text is read."""

    type: str
    text: str | None = None


def _content(given: Any) -> str:
    return "parts" if isinstance(given, list) else "text"


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[ContentPart], Tag("parts")],
    Discriminator(_content),
]


class CalledFunction(Open):
    """Function of a call. arguments: a JSON object as text."""

    name: str
    arguments: str = "{}"


class Call(Open):
    """Call of a tool in an earlier message."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Open):
    """A message. developer: as system."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class FunctionTool(Open):
    """Function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolSpec(Open):
    """Tool that the model may call."""

    type: Literal["function"]
    function: FunctionTool


class NamedFunction(Open):
    """Name of a function."""

    name: str


class NamedTool(Open):
    """Tool that the model has to call."""

    type: Literal["function"]
    function: NamedFunction


def _choice(given: Any) -> str:
    return "word" if isinstance(given, str) else "tool"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")] | Annotated[NamedTool, Tag("tool")],
    Discriminator(_choice),
]


class JsonSchema(Open):
    """Schema that the response follows."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: str = "response"
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class ResponseFormat(Open):
    """Form of the response."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Open):
    """Options of a stream. include_usage: end with a chunk that has the tokens."""

    include_usage: bool | None = None


def _stop(given: Any) -> str:
    return "texts" if isinstance(given, list) else "text"


Stop = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[str], Field(max_length=STOPS), Tag("texts")],
    Discriminator(_stop),
]


class GenerationRequest(Open):
    """Settings that chat and text completions have in common; null is as absent."""

    model: str = Field(max_length=256)
    max_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    """None is 1; 0 is greedy decoding."""
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None
    """0 and -1 draw from all tokens."""
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    presence_penalty: Bounded | None = None
    frequency_penalty: Bounded | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None
    """Equal seeds give equal responses on one version; None draws one."""
    stop: Stop | None = None
    n: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def stops(self) -> list[str]:
        """Texts that end a response."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]

    @property
    def choices(self) -> int:
        """Number of responses."""
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        """True for a stream that ends with the tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(GenerationRequest):
    """A chat completion request."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    """The newer name of `max_tokens`, and the one that counts."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[ToolSpec], Field(max_length=TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """False leaves out all calls but the first."""
    response_format: ResponseFormat | None = None
    functions: list[Any] | None = None
    modalities: list[str] | None = None


def _prompt(given: Any) -> str:
    first = given[0] if isinstance(given, list) and given else ""
    if not isinstance(given, list):
        return "text"
    return "texts" if isinstance(first, str) else "lists" if isinstance(first, list) else "ids"


class CompletionRequest(GenerationRequest):
    """A text completion request. Token ids are those of the model's tokenizer."""

    prompt: Annotated[
        Annotated[str, Tag("text")]
        | Annotated[Annotated[list[str], Field(min_length=1, fail_fast=True)], Tag("texts")]
        | Annotated[Ids, Tag("ids")]
        | Annotated[Annotated[list[Ids], Field(fail_fast=True)], Tag("lists")],
        Discriminator(_prompt),
    ]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None


FORMS = (
    *("text", "texts", "ids", "lists", "parts", "word", "tool", "schema"),
    *("items", "message", "call", "result", "other"),
)
"""Names of the forms of fields, here and of /v1/responses, which errors may repeat."""
