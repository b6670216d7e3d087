"""The API that LitServe serves, in a module of its own: its workers import it by name, and not all have LitServe."""

from __future__ import annotations

from typing import Any

import litserve

from tests.bench.servers import BATCH, Setup, pipeline_of


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """A transformers pipeline behind LitServe's batches."""

    def __init__(self, given: Setup, **options: Any) -> None:
        super().__init__(**options)
        self.given = given

    def setup(self, device: str) -> None:
        self.pipe = pipeline_of(self.given)

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        return list(self.pipe(texts, batch_size=BATCH))

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output
