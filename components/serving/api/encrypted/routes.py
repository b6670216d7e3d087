"""Routes of encrypted predictions, with `serve.encrypted`.

GET  /encrypted, /models/NAME/encrypted                  what a client needs to know of the version
POST /encrypted/keys                                     upload of evaluation keys, application/octet-stream
POST /encrypted/predict, /models/NAME/encrypted/predict  ciphertexts in, ciphertexts out; query: version, keys, texts

The number of tokens of an encrypted text is unknown: each counts as the most that the model reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Query, Request, Response

from raypath.components.core.errors import DataError
from raypath.components.homomorphic.interface import EncryptedInterface, StoredKeys
from raypath.components.homomorphic.key_store import EXPIRES, EvaluationKeyStore
from raypath.components.serving.api.body import read_bytes
from raypath.components.serving.api.encrypted.heads import ServedHead, ServedHeads
from raypath.components.serving.api.openapi import BODY_ERRORS, error_responses
from raypath.components.serving.metering.usage import Usage
from raypath.components.serving.observability.request_context import current_request
from raypath.components.serving.replica.tokenizing import TokenizerThread

if TYPE_CHECKING:
    from raypath.components.serving.model_versions import LoadedModel
    from raypath.components.serving.protocol import ModelService
    from raypath.components.serving.spec import EndpointSpec

T = TypeVar("T")
BYTES = "application/octet-stream"
UNKNOWN_KEYS = "these evaluation keys are not stored here, or expired; upload them to /encrypted/keys"
_BODY = {"requestBody": {"required": True, "content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}}
_RESULT: dict[int | str, dict[str, Any]] = {200: {"description": "Ciphertexts.", "content": {BYTES: {}}}}

Version = Annotated[int, Query(ge=1, lt=1 << 31, description="Version that GET /encrypted named.")]
Keys = Annotated[str, Query(pattern="^[0-9a-f]{64}$", description="SHA-256 of the evaluation keys.")]
Texts = Annotated[int, Query(ge=1, le=4_096, description="Texts that the ciphertexts are packed for, a power of two.")]


class EncryptedScoring:
    """State of the routes: heads, keys of clients, and the thread that computes."""

    def __init__(self, service: ModelService) -> None:
        self.service, self.settings = service, service.spec.serve
        self.heads = ServedHeads(self.settings)
        self.keys = EvaluationKeyStore(_folder(service.spec))
        self.thread = TokenizerThread(self.settings.max_queue_seconds)
        """Its work is counted in bytes of requests."""

    async def describe(self, name: str | None) -> EncryptedInterface:
        """Return the description of a model's version. Raises HTTP 422 for a model without a linear head."""
        return (await self._head(await self.service.select_model(name, stable=True))).about

    async def upload(self, request: Request) -> StoredKeys:
        """Store the evaluation keys of a client. Raises HTTP 422 for a body that is none."""
        owner = request.scope.get("raypath.key", "")
        body = await read_bytes(request, self.settings, BYTES)
        digest, seconds = await self.thread.run(len(body), lambda: _checked(lambda: self.keys.put(owner, body)))
        (request.scope.get("raypath.usage") or Usage()).compute_seconds += seconds
        return StoredKeys(keys=digest, expires_after=EXPIRES)

    async def predict(self, request: Request, name: str | None, version: int, keys: str, texts: int) -> Response:
        """Return the encrypted scores of a request. Raises HTTP 404 for a version that is not in service, 409 for
        unknown keys, 422 for ciphertexts that are none, 504 on timeout."""
        if texts > self.settings.max_items:
            detail = f"{texts:,} texts; wanted at most {self.settings.max_items:,} (serve.max_items)"
            raise HTTPException(422, detail)
        model = await self.service.select_model(name, version, stable=True)
        served, context = await self._head(model), current_request()
        context.served_by(model.name, model.version, "main")
        usage = request.scope.get("raypath.usage") or Usage()
        context.texts, context.tokens = texts, texts * model.metadata.max_length
        usage.count(context.tokens)
        owner = request.scope.get("raypath.key", "")
        body = await read_bytes(request, self.settings, BYTES)

        def work() -> bytes:
            began = thread_time()
            try:
                return _checked(lambda: served.head.score(body, texts, self.keys.get(owner, keys)))
            except KeyError:
                raise HTTPException(409, UNKNOWN_KEYS) from None
            finally:
                usage.compute_seconds += thread_time() - began

        try:
            async with asyncio.timeout(self.settings.request_timeout):
                result, _ = await self.thread.run(max(len(body), 1), work)
        except TimeoutError:
            detail = f"no response within {self.settings.request_timeout:g} seconds (serve.request_timeout)"
            raise HTTPException(504, detail) from None
        return Response(result, media_type=BYTES)

    async def _head(self, model: LoadedModel) -> ServedHead:
        try:
            return await self.heads.of(model)
        except DataError as error:
            raise HTTPException(422, f"model {model.name}: {error.what}") from None


def routes(service: ModelService) -> APIRouter:
    """Build the routes of a service."""
    router, scoring = APIRouter(tags=["Encrypted"]), EncryptedScoring(service)

    @router.get("/encrypted", responses=error_responses(422, 503))
    async def describe() -> EncryptedInterface:
        """Describe the version in service to clients that encrypt."""
        return await scoring.describe(None)

    @router.get("/models/{name}/encrypted", responses=error_responses(404, 422, 503))
    async def describe_additional(name: str) -> EncryptedInterface:
        """Describe the version of an additional model."""
        return await scoring.describe(name)

    @router.post("/encrypted/keys", responses=error_responses(*BODY_ERRORS), openapi_extra=_BODY)
    async def upload(request: Request) -> StoredKeys:
        """Upload evaluation keys, for all models."""
        return await scoring.upload(request)

    @router.post(
        "/encrypted/predict",
        response_class=Response,
        responses={**_RESULT, **error_responses(404, 409, *BODY_ERRORS)},
        openapi_extra=_BODY,
    )
    async def predict(request: Request, version: Version, keys: Keys, texts: Texts) -> Response:
        """Compute the scores of encrypted features."""
        return await scoring.predict(request, None, version, keys, texts)

    @router.post(
        "/models/{name}/encrypted/predict",
        response_class=Response,
        responses={**_RESULT, **error_responses(404, 409, 503, *BODY_ERRORS)},
        openapi_extra=_BODY,
    )
    async def predict_with_additional(
        name: str, request: Request, version: Version, keys: Keys, texts: Texts
    ) -> Response:
        """Compute the scores of an additional model."""
        return await scoring.predict(request, name, version, keys, texts)

    return router


def _checked(work: Callable[[], T]) -> T:
    """Return what `work` returns. Raises HTTP 422 for a DataError."""
    try:
        return work()
    except DataError as error:
        raise HTTPException(422, f"{error.what}; {error.fix}" if error.fix else error.what) from None


def _folder(spec: EndpointSpec) -> Path | None:
    """Return the folder of evaluation keys, which the replicas share; None where there are no API keys."""
    usage = Path(spec.usage) if spec.usage else Path(spec.access) / "usage" if spec.access else None
    return usage / "evaluation-keys" if usage else None
