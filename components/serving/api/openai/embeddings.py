"""OpenAI-compatible embeddings: POST /v1/embeddings.

    {"model": NAME, "input": "..." | ["..."] | [token ids] | [[token ids]], "encoding_format": "float" | "base64"}

Vectors have length one (see inference/pooling.py). Token ids are accepted with `serve.token_ids` only; they are those
of the model's tokenizer, not of tiktoken, with or without special tokens. `dimensions` has to equal the model's width:
it is not trained for shorter vectors. Vectors of two versions are not comparable, so the response has the `version`. A
text longer than the model's maximum length is truncated, as for predictions; a list of token ids is rejected.
"""

from __future__ import annotations

import base64
import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import to_json

from raypath.components.core.errors import DataError
from raypath.components.data.tokenization.tokenizer import SpecialTokens
from raypath.components.inference.pooling import Embedders
from raypath.components.serving.api.body import read_body
from raypath.components.serving.api.errors import read
from raypath.components.serving.api.openapi import BODY_ERRORS, body_of, error_responses
from raypath.components.serving.metering.usage import Usage
from raypath.components.serving.params import ServeParams

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import LoadedModel
    from raypath.components.serving.protocol import ModelService

VALUES = 1 << 20
"""Token ids in a request."""
NO_TOKEN_IDS = (
    "input has token ids, which those of another tokenizer would be too; wanted texts "
    "(LangChain: check_embedding_ctx_length=False), or serve.token_ids=true for ids of this model's tokenizer"
)
Id = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]
Ids = Annotated[list[Id], Field(min_length=1, fail_fast=True)]


NO_REDACTED_IDS = "input has token ids, of which this model cannot redact personal data; wanted texts"
FORMS = ("text", "texts", "ids", "lists")
"""Forms of an input, named in errors."""


def _form(given: Any) -> str:
    """Return the form of an input, by its first element."""
    first = given[0] if isinstance(given, list) and given else ""
    if not isinstance(given, list):
        return "text"
    return "texts" if isinstance(first, str) else "lists" if isinstance(first, list) else "ids"


Input = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[Annotated[list[str], Field(min_length=1, fail_fast=True)], Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[Annotated[list[Ids], Field(fail_fast=True)], Tag("lists")],
    Discriminator(_form),
]


class EmbeddingRequest(BaseModel):
    """An embedding request; `user` and other fields of OpenAI are ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(max_length=256)
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    """None is float; base64 is of little-endian float32."""
    dimensions: int | None = Field(None, ge=1, lt=1 << 31)


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class TokenUsage(BaseModel):
    """Number of tokens, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """One vector per input, in the order of the request."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    version: int
    usage: TokenUsage


class TokenIds:
    """Identity tokenizer, for inputs that are token ids already."""

    def __init__(self, special: SpecialTokens) -> None:
        self._special = special

    def encode(self, inputs: list[list[int]]) -> list[list[int]]:
        """Return the inputs unchanged."""
        return inputs

    def special_tokens(self) -> SpecialTokens:
        """Return the special tokens of the model's tokenizer."""
        return self._special


def routes(service: ModelService) -> APIRouter:
    """Build the routes of a service."""
    router, embedders = APIRouter(prefix="/v1", tags=["OpenAI"]), Embedders()

    @router.post(
        "/embeddings",
        response_model=None,
        responses={200: {"model": EmbeddingResponse}, **error_responses(404, 503, *BODY_ERRORS)},
        openapi_extra=body_of(EmbeddingRequest),
    )
    async def embeddings(request: Request) -> Response:
        body = await read_body(request, service.spec.serve, VALUES)
        given = read(EmbeddingRequest, body, *FORMS)
        loaded = await service.select_model(given.model, stable=True)
        try:
            engine = await embedders.of(loaded.engine, loaded.folder)
        except DataError as error:
            raise HTTPException(503, f"model {loaded.name} has no embeddings: {error.what}") from None
        _check_width(given, engine.task.outputs)
        _check_form(given, service.spec.serve)
        usage = request.scope.get("raypath.usage") or Usage()
        loaded, inputs = await service.read_texts(loaded, len(body), partial(_inputs, given, loaded))
        vectors = await service.infer(loaded, inputs, usage, engine)
        return Response(_response(given, loaded, vectors, usage.tokens), media_type="application/json")

    return router


def _check_width(given: EmbeddingRequest, width: int) -> None:
    if given.dimensions not in (None, width):
        raise HTTPException(422, f"dimensions: this model has vectors of width {width} and cannot shorten them")


def _check_form(given: EmbeddingRequest, settings: ServeParams) -> None:
    if not settings.token_ids and _form(given.input) in ("ids", "lists"):
        raise HTTPException(422, NO_TOKEN_IDS)


def _inputs(given: EmbeddingRequest, loaded: LoadedModel) -> tuple[LoadedModel, Any]:
    """Return the model to run and its inputs: texts, or token ids with special tokens around them."""
    one = isinstance(given.input, str) or not isinstance(given.input[0], str | list)
    rows: Any = [given.input] if one else given.input
    if isinstance(rows[0], str):
        return loaded, loaded.task.redacted(rows)
    if loaded.task.redactor is not None:
        raise HTTPException(422, NO_REDACTED_IDS)
    special = loaded.tokenizer.special_tokens()
    rows = [_with_special_tokens(row, special, loaded.metadata.max_length, n) for n, row in enumerate(rows)]
    return dataclasses.replace(loaded, tokenizer=TokenIds(special)), rows


def _with_special_tokens(row: list[int], special: SpecialTokens, longest: int, number: int) -> list[int]:
    """Add special tokens unless they are there. Raises HTTP 422 for invalid token ids."""
    before, after = special.before, special.after
    if max(row) >= special.vocabulary:
        raise HTTPException(422, f"input {number} has a token id beyond the vocabulary of {special.vocabulary:,}")
    if row[: len(before)] != before or row[len(row) - len(after) :] != after:
        row = [*before, *row, *after]
    if len(row) > longest:
        raise HTTPException(422, f"input {number} has {len(row):,} tokens; the model takes at most {longest:,}")
    return row


def _response(given: EmbeddingRequest, loaded: LoadedModel, vectors: Any, tokens: int) -> bytes:
    """Serialize the response; pydantic_core writes the floats without a Python model for each."""
    vectors = np.ascontiguousarray(vectors, dtype="<f4")  # [N, width]
    if given.encoding_format == "base64":
        values: Any = [base64.b64encode(row.tobytes()).decode() for row in vectors]
    else:
        values = vectors.tolist()
    data = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(values)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return to_json({"object": "list", "data": data, "model": loaded.name, "version": loaded.version, "usage": usage})
