"""Over a real HTTP server: which version answers, what a shadow does beside it, and who pays for which model."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.usage import read_usage
from raypath.components.serving.model_versions import LoadedModel, LoadFault, ModelVersion, ReplicaPlan, Role
from raypath.components.serving.observability.prediction_log import PredictionLog
from raypath.components.serving.replica.loader import open_version
from tests.components.serving.server import served, service_of
from tests.signed import cached_folder, signed_version
from tests.tiny_classifier import LENGTH, texts, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@pytest.fixture
def service(tmp_path: Path) -> Any:
    return service_of({"m": tiny_classifier(tmp_path / "m")})


@pytest.fixture
def closed() -> str:
    """An address where nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


THREE = ["a lovely tea", "tea", "broken cup"]


def version(folder: Path, number: int, seed: int = 0) -> LoadedModel:
    return open_version(Path(tiny_classifier(folder / f"v{number}", seed=seed).uri), "m", number, threads=1)


def ask(url: str, lines: list[str] | str = "tea") -> dict[str, Any]:
    reply = httpx.post(f"{url}/predict", json={"text": lines})
    assert reply.status_code == 200
    found: dict[str, Any] = reply.json()
    return found


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_canary_answers_its_share_of_predictions_and_no_embeddings(service: Any, tmp_path: Path) -> None:
    service.models.active[Role.CANARY] = version(tmp_path, 2, seed=1)
    canary = ModelVersion(name="m", version=2)
    service.models.plan = service.models.plan.model_copy(update={"canary": canary, "canary_percent": 50.0})
    with served(service) as url:
        assert {ask(url)["version"] for _ in range(30)} == {1, 2}
        vectors = [httpx.post(f"{url}/v1/embeddings", json={"model": "m", "input": "tea"}).json() for _ in range(10)]
        assert {one["version"] for one in vectors} == {1}
        assert httpx.get(f"{url}/v2/models/m/versions/2").status_code == 200


@pytest.mark.parametrize(("seed", "agree"), [(0, True), (5, False)])
def test_a_shadow_is_compared_and_never_heard(service: Any, tmp_path: Path, seed: int, agree: bool) -> None:
    service.models.active[Role.SHADOW] = version(tmp_path, 2, seed)
    service.shadow.set_version(service.models.active[Role.SHADOW])
    with served(service) as url:
        assert ask(url, texts(40))["version"] == 1
        until(lambda: service.shadow.compared.predictions)
    compared = service.shadow.compared
    assert (compared.predictions, compared.agreed == 40, compared.failed) == (40, agree, 0)
    assert service.metrics.counts["raypath_shadow_compared", ("2",)] == 40
    assert service.metrics.counts["raypath_shadow_agreed", ("2",)] == compared.agreed


def test_what_a_shadow_answered_stands_in_the_prediction_log(service: Any, tmp_path: Path) -> None:
    service.log = service.shadow.log = PredictionLog(tmp_path / "log", "r", share=1.0)
    service.models.active[Role.SHADOW] = version(tmp_path, 2)
    service.shadow.set_version(service.models.active[Role.SHADOW])
    with served(service) as url:
        httpx.post(f"{url}/predict", json={"text": ["tea", "cup"]}, headers={"x-request-id": "one"})
        until(lambda: service.shadow.compared.predictions)
    assert service.log.close()
    rows = pa.concat_tables(pq.read_table(path) for path in (tmp_path / "log").glob("[0-9]*")).to_pylist()
    told = sorted((row["request_id"], row["role"], row["version"], row["text_index"]) for row in rows)
    assert told == [("one", "main", 1, 0), ("one", "main", 1, 1), ("one", "shadow", 2, 0), ("one", "shadow", 2, 1)]


def test_a_shadow_that_fails_is_counted_and_disturbs_nobody(
    service: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        budget = 100

        def record(self, rows: Any) -> Any:
            raise ValueError("SECRET tea")

    broken: Any = Broken()
    service.models.active[Role.SHADOW] = replace(version(tmp_path, 2), engine=broken)
    service.shadow.set_version(service.models.active[Role.SHADOW])
    with caplog.at_level(logging.WARNING), served(service) as url:
        for count in (1, 2):
            assert ask(url)["version"] == 1
            until(lambda count=count: service.shadow.compared.failed == count)
    assert service.metrics.counts["raypath_shadow_failed", ("2",)] == 2
    assert "shadow version 2 failed: ValueError" in caplog.text
    assert "SECRET" not in caplog.text
    assert "never retrieved" not in caplog.text


def test_each_model_has_its_own_line_in_the_bill(tmp_path: Path) -> None:
    models = {name: tiny_classifier(tmp_path / name) for name in ("m", "n")}
    _, key = KeyStore(tmp_path / "access").create("anna")
    service = service_of(models, access=str(tmp_path / "access"))
    with served(service) as url, httpx.Client(base_url=url, headers={"x-api-key": key}) as client:
        for path, lines in (("/predict", THREE), ("/models/n/predict", "tea"), ("/models/n/predict", "tea")):
            assert client.post(path, json={"text": lines}).status_code == 200
        assert client.post("/models/m/predict", json={"text": "tea"}).status_code == 200
        assert client.post("/models/n/predict", json={"text": []}).status_code == 422
        assert client.post("/models/other/predict", json={"text": "tea"}).status_code == 404
        sums: dict[str, Any] = {}

        def metered() -> bool:  # a client may have its response before
            service.auth.meter.flush()
            sums.update({row.what: row.sums for row in read_usage(tmp_path / "access" / "usage", by="model")})
            return sum(each.requests for each in sums.values()) == 6

        until(metered)
    assert {name: (each.requests, each.errors) for name, each in sums.items()} == {"m": (3, 1), "n": (3, 1)}
    encoder = TextTokenizer(Path(models["m"].uri), LENGTH)
    counts = [len(row) for row in encoder.encode([*THREE, "tea"])]
    assert counts == [5, 3, 4, 3]
    assert (sums["m"].tokens, sums["n"].tokens) == (sum(counts), 2 * counts[-1]), "of a text that comes twice, twice"


def test_health_tells_that_a_version_was_refused_and_not_why(service: Any) -> None:
    fault = LoadFault(name="m", version=7, reason="http://user:SECRET@mlflow/x is away")
    with served(service) as url:
        assert httpx.get(f"{url}/healthz").json() == {"name": "m", "version": 1, "status": "ok"}
        service.models.faults[Role.MAIN] = fault
        told = httpx.get(f"{url}/healthz")
        assert told.json()["status"] == "degraded: version 7 was rejected"
        assert "SECRET" not in told.text
    state = asyncio.run(service.status())
    assert (state["versions"], state["faults"]["main"]["reason"]) == ({"m": 1}, fault.reason)


def test_a_client_is_not_told_why_another_model_is_away(tmp_path: Path, closed: str) -> None:
    service = service_of({name: tiny_classifier(tmp_path / name) for name in ("m", "n")})
    service.models.tracking = closed
    del service.models.pool.loaded["n"]
    with served(service) as url:
        reply = httpx.post(f"{url}/models/n/predict", json={"text": "tea"})
        health = httpx.get(f"{url}/healthz").json()
    assert (reply.status_code, reply.json()["detail"]) == (503, "model n cannot be loaded; contact its operator")
    assert health["status"] == "degraded: model n version 1 could not be fetched yet"
    assert closed in service.models.model_faults["n"].reason


def test_what_could_not_be_fetched_is_tried_again(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    from raypath.components.serving.replica import base as app

    monkeypatch.setenv("RAYPATH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(app, "RETRY_SECONDS", 0.1)
    service.models.tracking = closed
    wanted = signed_version(version(tmp_path, 2).folder, "m", 2, closed)
    cached_folder(wanted, closed).rename(tmp_path / "elsewhere")

    async def take() -> None:
        await service._apply(ReplicaPlan(main=wanted))
        assert (service.models.main.version, service.health().status) == (
            1,
            "degraded: version 2 could not be fetched yet",
        )
        (tmp_path / "elsewhere").rename(cached_folder(wanted, closed))
        async with asyncio.timeout(10):
            while service.models.main.version != 2:
                await asyncio.sleep(0.01)
        assert service.health().status == "ok"

    asyncio.run(take())
