"""A replica of a model whose training data was redacted: nothing of a request's personal data reaches model or log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from raypath.components.core.columns import Redaction
from raypath.components.inference.local_model import LocalModel
from raypath.components.models.metadata import read_metadata, write_metadata
from raypath.components.privacy.kinds import DEFAULT
from raypath.components.privacy.recogniser import VERSION
from raypath.components.serving.observability.prediction_log import PredictionLog
from tests.components.serving.server import served, service_of
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
TEXT, REDACTED = "write to anna.novak@web.de, +49 30 1234567", "write to <EMAIL>, <PHONE>"


class Replica:
    """A running replica: its URL, the texts that its tokenizer read, and those that its log has."""

    def __init__(self, url: str, service: Any, folder: Path) -> None:
        self.url, self.service, self.folder, self.read = url, service, folder, list[str]()


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("model")
    model = tiny_classifier(folder)
    place = Path(model.uri)
    settings = Redaction(version=VERSION, kinds=tuple(kind.value for kind in DEFAULT))
    write_metadata(place, read_metadata(place).model_copy(update={"redaction": settings}))
    service = service_of({"m": model})
    service.log = PredictionLog(folder / "log", "r", texts=True)
    with served(service) as url:
        made = Replica(url, service, place)
        real = service.tokenizing.encode

        async def encode(tokenizer: Any, texts: list[str]) -> Any:
            made.read += texts
            return await real(tokenizer, texts)

        service.tokenizing.encode = encode
        yield made
    service.log.close()


def test_every_route_redacts_before_the_model_and_the_log(replica: Replica) -> None:
    import pyarrow.parquet as pq

    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
    for path, body in (
        ("/predict", {"text": TEXT}),
        ("/predict", {"text": [TEXT] * 3 + ["x" * 400] * 12}),
        ("/v1/embeddings", {"model": "m", "input": TEXT}),
        ("/v2/models/m/infer", {"inputs": [tensor]}),
    ):
        replica.read.clear()
        response = httpx.post(f"{replica.url}{path}", json=body, timeout=60)
        assert response.status_code == 200, response.text
        assert set(replica.read) - {"x" * 400} == {REDACTED}, path
    assert replica.service.log.flush()
    logged = [
        text
        for file in replica.service.log.folder.glob("*.parquet")
        for text in pq.read_table(file)["text"].to_pylist()
    ]
    assert set(logged) - {"x" * 400} == {REDACTED}


def test_token_ids_are_rejected(replica: Replica) -> None:
    replica.service.spec = replica.service.spec.model_copy(
        update={"serve": replica.service.spec.serve.model_copy(update={"token_ids": True})}
    )
    response = httpx.post(f"{replica.url}/v1/embeddings", json={"model": "m", "input": [1, 2]}, timeout=60)
    assert response.status_code == 422
    assert "cannot redact" in response.text


def test_a_local_model_predicts_as_the_endpoint(replica: Replica) -> None:
    local = LocalModel(replica.folder, "m", 1, threads=1)
    found = local.predict([TEXT, REDACTED])
    assert found[0] == found[1]
    response = httpx.post(f"{replica.url}/predict", json={"text": TEXT}, timeout=60).json()
    assert response["predictions"][0]["label"] == found[0].label
