"""Client of an endpoint: predictions, embeddings, chat, model card and health, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from pydantic import BaseModel, ConfigDict, ValidationError

from raypath.components.core.errors import UserError
from raypath.components.serving.client.arguments import checked_key, checked_number, checked_url
from raypath.components.serving.client.calls import drive, drive_async
from raypath.components.serving.client.chat import ChatResponse, Messages, chat_request, read_chat, read_texts
from raypath.components.serving.client.transport import AsyncTransport, Check, Request, SyncTransport, no_check
from raypath.components.tasks.responses import Embeddings, Predictions
from raypath.components.tasks.texts import Inputs, as_rows, as_texts
from raypath.components.tracking import trust

if TYPE_CHECKING:
    import httpx

    from raypath.components.serving.client.encrypted import EncryptedCalls

R = TypeVar("R", bound=BaseModel)
KEY = "RAYPATH_API_KEY"
"""Environment variable with the API key, where none is given."""


class Health(BaseModel):
    """State of an endpoint. status: `ok`, or why the requested version is not in service."""

    model_config = ConfigDict(extra="ignore")

    name: str
    version: int
    status: str


class Card(BaseModel):
    """Model card: what a version predicts, what it was trained on, and its metrics on the test split."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: int
    task: str
    labels: list[str] = []
    base: str = ""
    max_length: int = 0
    """Tokens of a text that are read."""
    precision: str = ""
    metrics: dict[str, float] = {}


class Client:
    """Client of an endpoint. Thread-safe; connections are kept open and reused. Close it, or use it as a context.

    Busy responses (429, 503) are retried after the time that the endpoint names, broken connections with exponential
    backoff, until an attempt succeeds or `timeout` is over.

    Args:
        url: URL of the endpoint, such as `run.endpoint.url`.
        key: API key (`raypath keys create NAME`); None takes the environment variable RAYPATH_API_KEY.
        model: Name of another model of the same service (`serve.extra_models`); "" is its main model.
        timeout: Seconds for a call, retries and waiting included.
        attempts: Attempts for a call, the first one included.
        verify: How to verify TLS certificates: True, by the system's authorities and those of $RAYPATH_CA_FILE; a PEM
            file of the only authorities to trust, such as `.raypath/tls/ca.pem`; False; or an `ssl.SSLContext`.
        check: Called with the URL before each request; a ConnectionError counts as no response.

    Raises:
        UserError: `url` is not an http or https URL, or another argument is wrong.

    Example:
        with raypath.Client("http://127.0.0.1:8000", key) as client:
            found = client.predict(["Great taste", "Arrived broken"])
            print([prediction.label for prediction in found])

        async with raypath.Client(url, key) as client:
            found = await client.predict_async("Great taste")
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        model: str = "",
        timeout: float = 60.0,
        attempts: int = 6,
        verify: Any = True,
        check: Check = no_check,
    ) -> None:
        self.url = checked_url(url)
        self.model = model
        self.timeout = checked_number("timeout", timeout)
        if not isinstance(attempts, int):
            raise UserError(f"attempts={attempts!r}; wanted an integer above 0", fix="1 means no retries")
        self.attempts = int(checked_number("attempts", attempts))
        key = checked_key(os.environ.get(KEY, "") if key is None else key)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        verify = trust.verification(verify, self.url)
        self._sync = SyncTransport(self.url, headers, verify, check)
        self._async = AsyncTransport(self.url, headers, verify, check)
        self._encrypted: EncryptedCalls | None = None
        self._lock = threading.Lock()

    @overload
    def predict(self, texts: Inputs) -> Predictions: ...
    @overload
    def predict(self, texts: Inputs, response: type[R]) -> R: ...
    def predict(self, texts: Inputs, response: type[Any] = Predictions) -> Any:
        """Predict one text or several.

        Args:
            texts: A text, or several; one prediction each, in order.
            response: Model to read the response as, for a task of your own.

        Raises:
            RequestError: The endpoint rejected the request: no valid key, too many texts, unknown model.
            TooManyRequests: The queue, the rate or the quota stayed full for longer than `timeout`.
            Unavailable: No response within `timeout`.
        """
        return _read(response, self._sync.send(self._predict(texts), self.timeout, self.attempts))

    @overload
    async def predict_async(self, texts: Inputs) -> Predictions: ...
    @overload
    async def predict_async(self, texts: Inputs, response: type[R]) -> R: ...
    async def predict_async(self, texts: Inputs, response: type[Any] = Predictions) -> Any:
        """Predict like `predict`, without blocking the event loop."""
        return _read(response, await self._async.send(self._predict(texts), self.timeout, self.attempts))

    def predict_encrypted(self, texts: Inputs, base: str) -> Predictions:
        """Predict like `predict`, without showing the texts to the endpoint: it receives encrypted features.

        The endpoint computes the head on ciphertexts and returns encrypted scores, which this client decrypts. It needs
        `serve.encrypted=true`, and the extra `he` on both sides; see docs/encrypted-predictions.md.

        Args:
            texts: A text, or several.
            base: The encoder, loaded in this process: the base model of a version whose head was fitted to its frozen
                features, or a folder that the operator exported.

        Raises what `predict` raises, DataError for a base with another encoder, ParamsError without TenSEAL.
        """
        call = self._encrypted_calls().predict(texts, base, self._prefix)
        found: Predictions = drive(call, lambda request: self._sync.send(request, self.timeout, self.attempts))
        return found

    async def predict_encrypted_async(self, texts: Inputs, base: str) -> Predictions:
        """Predict like `predict_encrypted`, without blocking the event loop."""
        calls = await asyncio.to_thread(self._encrypted_calls)
        call = calls.predict(texts, base, self._prefix)
        send = partial(self._async.send, timeout=self.timeout, attempts=self.attempts)
        found: Predictions = await drive_async(call, send)
        return found

    def embed(self, texts: str | Sequence[str]) -> Embeddings:
        """Embed one text or several with the fine-tuned encoder. Raises what `predict` raises."""
        request = self._embed(texts, self.model or self.health().name)
        return _embeddings(self._sync.send(request, self.timeout, self.attempts))

    async def embed_async(self, texts: str | Sequence[str]) -> Embeddings:
        """Embed like `embed`, without blocking the event loop."""
        request = self._embed(texts, self.model or (await self.health_async()).name)
        return _embeddings(await self._async.send(request, self.timeout, self.attempts))

    def chat(self, messages: Messages, **settings: Any) -> ChatResponse:
        """Return the response of a language model to a conversation.

        Args:
            messages: A text, or messages in OpenAI's form (`role`, `content`).
            settings: Fields of OpenAI's request, such as `temperature`, `max_tokens` and `tools`.

        Raises:
            RequestError: The endpoint rejected the request.
            Unavailable: No response within `timeout`.
        """
        request = chat_request(messages, self.model or self.health().name, settings)
        return read_chat(self._sync.send(request, self.timeout, self.attempts).content, self.url)

    async def chat_async(self, messages: Messages, **settings: Any) -> ChatResponse:
        """Chat like `chat`, without blocking the event loop."""
        request = chat_request(messages, self.model or (await self.health_async()).name, settings)
        return read_chat((await self._async.send(request, self.timeout, self.attempts)).content, self.url)

    def stream_chat(self, messages: Messages, **settings: Any) -> Iterator[str]:
        """Yield the text of a response as it is generated; an iterator that is closed aborts it.

        Raises what `chat` raises, and Unavailable for a response that breaks off.
        """
        request = chat_request(messages, self.model or self.health().name, {**settings, "stream": True})
        with self._sync.stream(request, self.timeout, self.attempts) as response:
            yield from read_texts(response.iter_lines(), self.url)

    def card(self) -> Card:
        """Return the model card of the version in service. Raises what `predict` raises."""
        return _read(Card, self._sync.send(self._get("card"), self.timeout, self.attempts))

    async def card_async(self) -> Card:
        """Return the model card without blocking the event loop."""
        return _read(Card, await self._async.send(self._get("card"), self.timeout, self.attempts))

    def health(self) -> Health:
        """Return name, version and status of the endpoint; needs no key. Raises Unavailable."""
        return _read(Health, self._sync.send(Request("GET", "/healthz"), self.timeout, self.attempts))

    async def health_async(self) -> Health:
        """Return the health without blocking the event loop."""
        return _read(Health, await self._async.send(Request("GET", "/healthz"), self.timeout, self.attempts))

    def close(self) -> None:
        """Close the connections of synchronous calls."""
        self._sync.close()

    async def close_async(self) -> None:
        """Close all connections."""
        self._sync.close()
        await self._async.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()

    @property
    def _prefix(self) -> str:
        return f"/models/{self.model}" if self.model else ""

    def _encrypted_calls(self) -> EncryptedCalls:
        """Return the state of encrypted predictions, with a new secret key the first time. Raises ParamsError."""
        from raypath.components.serving.client.encrypted import EncryptedCalls

        with self._lock:
            self._encrypted = self._encrypted or EncryptedCalls()
            return self._encrypted

    def _predict(self, texts: Inputs) -> Request:
        path = f"{self._prefix}/predict"
        if (rows := as_rows(texts)) is not None:
            return Request("POST", path, {"rows": [dict(row) for row in rows]})
        given = as_texts(texts)  # type: ignore[arg-type]
        return Request("POST", path, {"text": given[0] if isinstance(texts, str) else given})

    def _embed(self, texts: str | Sequence[str], model: str) -> Request:
        return Request("POST", "/v1/embeddings", {"model": model, "input": as_texts(texts)})

    def _get(self, what: str) -> Request:
        return Request("GET", f"{self._prefix}/{what}")


def _read(kind: type[R], response: httpx.Response) -> R:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        what = f"{response.url} returned something that is not a {kind.__name__} ({error.error_count()} errors)"
        raise UserError(what, fix="check the URL") from None


class _Usage(BaseModel):
    total_tokens: int


class _Vector(BaseModel):
    embedding: list[float]


class _EmbeddingResponse(BaseModel):
    """Body of POST /v1/embeddings."""

    model: str
    version: int
    data: list[_Vector]
    usage: _Usage


def _embeddings(response: httpx.Response) -> Embeddings:
    body = _read(_EmbeddingResponse, response)
    vectors = [each.embedding for each in body.data]
    return Embeddings(model=body.model, version=body.version, vectors=vectors, tokens=body.usage.total_tokens)
