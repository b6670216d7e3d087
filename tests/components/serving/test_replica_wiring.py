"""How a replica is put together from its spec: ledgers and shares of keys, background tasks, logs, timeouts."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException

from raypath.components.core.errors import Unavailable
from raypath.components.serving.metering.ledger import Ledger, SharedLedger
from raypath.components.serving.metering.usage import Usage
from raypath.components.serving.model_versions import LoadFault, ModelVersion, ReplicaPlan, Role
from raypath.components.serving.params import ServeParams
from raypath.components.serving.spec import EndpointSpec
from tests.components.serving.server import LIMITS, service_of
from tests.tiny_classifier import tiny_classifier

with warnings.catch_warnings():
    # Ray Serve warns when it is imported.
    warnings.simplefilter("ignore")
    from raypath.components.serving.replica import base, deployment

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _service(serve: ServeParams = LIMITS, **fields: Any) -> Any:
    """A replica without a model."""
    spec = EndpointSpec(name="m", tracking="t", url="http://x", route="/", serve=serve, options={}, **fields)
    service: Any = deployment.Service.func_or_class.__mro__[1](spec.model_dump())  # type: ignore[attr-defined]
    return service


def test_ledgers_and_shares_of_keys(tmp_path: Path) -> None:
    three = LIMITS.model_copy(update={"replicas": 3, "max_ongoing": 9})
    local = _service(three, access=str(tmp_path / "keys"))._with_auth(FastAPI(docs_url=None, redoc_url=None))
    assert isinstance(local.meter.ledger, SharedLedger)
    assert local.meter.ledger.file == tmp_path / "keys" / "usage" / "key-limits"
    assert (local.meter.folder, local.meter.model) == (tmp_path / "keys" / "usage", "m")
    assert (local.limiter.share, local.max_open) == (1.0, 4)
    access = {"access": str(tmp_path / "keys"), "usage": str(tmp_path / "usage")}
    cluster = _service(three, poll_seconds=5.0, **access)._with_auth(FastAPI(docs_url=None, redoc_url=None))
    assert type(cluster.meter.ledger) is Ledger
    assert cluster.meter.folder == tmp_path / "usage"
    assert cluster.limiter.share == pytest.approx(1 / 3)
    assert cluster.max_tokens("predict") == 0, "no model is loaded"
    assert cluster.per_byte() == 1


def test_logs_of_predictions(tmp_path: Path) -> None:
    assert _service().log is None
    serve = LIMITS.model_copy(update={"log_predictions": 0.5, "log_texts": True})
    service = _service(serve, predictions=str(tmp_path / "p"))
    assert (service.log.folder, service.log.share, service.log.texts) == (tmp_path / "p", 0.5, True)
    service.log._count("dropped", 3)
    assert service.metrics.counts["raypath_predictions_dropped", ()] == 3


def test_what_is_queued() -> None:
    service = _service()
    assert service._queue_seconds() == 0.0
    service.batcher = SimpleNamespace(wait=lambda: 1.5)
    service.tokenizing = SimpleNamespace(wait=lambda: 0.25)
    assert service._queue_seconds() == 1.75


@pytest.mark.parametrize(
    ("serve", "fields", "tasks"),
    [
        (LIMITS, {}, ["certificates"]),
        (LIMITS, {"poll_seconds": 5.0}, ["certificates", "watch"]),
        (LIMITS.model_copy(update={"replicas": 2}), {"poll_seconds": 5.0}, ["certificates", "share", "watch"]),
        (LIMITS.model_copy(update={"replicas": 2}), {}, ["certificates"]),
        (LIMITS.model_copy(update={"decide": True, "shadow": "a"}), {}, ["certificates", "live"]),
    ],
)
def test_background_tasks(
    serve: ServeParams, fields: dict[str, Any], tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[Any] = []

    async def forever(*_: Any) -> None:
        await asyncio.sleep(60)

    async def apply(self: Any, plan: Any) -> bool:
        applied.append(plan.main.version)
        return True

    for module, name in ((base, "update_share"), (base, "watch_live"), (base, "watch_registry")):
        monkeypatch.setattr(module, name, forever)
    found = ReplicaPlan(main=ModelVersion(name="m", version=7))
    monkeypatch.setattr(base, "read_plan", lambda spec: found)
    service = _service(serve, access=str(tmp_path / "keys"), **fields)
    monkeypatch.setattr(type(service), "_apply", apply)
    service.auth = service._with_auth(FastAPI(docs_url=None, redoc_url=None))

    async def run() -> list[str]:
        await service.reconfigure({"main": {"name": "m", "version": 3}})
        started = sorted(service.tasks)
        for task in service.tasks.values():
            task.cancel()
        service.metrics.close()
        service.batcher.close()
        return started

    assert asyncio.run(run()) == tasks
    assert applied == [7 if fields else 3], "the registry has a later plan"


def test_a_registry_that_does_not_respond_leaves_the_plan(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(spec: EndpointSpec) -> ReplicaPlan:
        raise Unavailable("no answer", fix="")

    async def forever(*_: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(base, "read_plan", away)
    monkeypatch.setattr(base, "watch_registry", forever)
    service, plan = _service(poll_seconds=5.0), ReplicaPlan(main=ModelVersion(name="m", version=3))

    async def run() -> ReplicaPlan:
        found: ReplicaPlan = await service._watch(plan)
        first = service.tasks["watch"]
        service._start_task("watch", forever())
        await asyncio.sleep(0)
        assert first.cancelled()
        service.tasks["watch"].cancel()
        return found

    assert asyncio.run(run()) == plan
    assert caplog.messages == ["the registry could not be read: no answer"]


def test_a_plan_is_applied_again_unless_another_came(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[int] = []

    async def apply(self: Any, plan: ReplicaPlan) -> bool:
        applied.append(plan.main.version)
        return True

    monkeypatch.setattr(base, "RETRY_SECONDS", 0.0)
    service, plans = _service(), [ReplicaPlan(main=ModelVersion(name="m", version=n)) for n in (1, 2)]
    monkeypatch.setattr(type(service), "_apply", apply)
    for now in plans:
        service.models.plan = now
        asyncio.run(service._retry(plans[0]))
    assert applied == [1]


@pytest.mark.parametrize(
    ("poll", "faults", "complete", "started", "demoted"),
    [
        (0.0, [], True, [], False),
        (0.0, [True], False, [], False),
        (0.0, [True, False], False, ["retry"], False),
        (5.0, [False], False, [], True),
    ],
)
def test_faults_of_a_plan(
    poll: float,
    faults: list[bool],
    complete: bool,
    started: list[str],
    demoted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, calls = _service(poll_seconds=poll), []
    found = [LoadFault(name="m", version=2, reason="x", rejected=rejected) for rejected in faults]

    async def apply(plan: ReplicaPlan) -> None:
        service.models.faults = {Role.MAIN: found[0]} if found else {}
        service.models.model_faults = {str(n): fault for n, fault in enumerate(found[1:])}

    def demote(spec: Any, given: Any, version_of: Any) -> None:
        calls.append(list(given))

    monkeypatch.setattr(service.models, "apply", apply)
    monkeypatch.setattr(service.live, "set_plan", lambda *_: None)
    monkeypatch.setattr(base, "demote_rejected", demote)

    async def run() -> bool:
        loaded: bool = await service._apply(ReplicaPlan(main=ModelVersion(name="m", version=2)))
        for task in service.tasks.values():
            task.cancel()
        return loaded

    assert asyncio.run(run()) is complete
    assert (list(service.tasks), calls) == (started, [found] if demoted else [])


def test_a_request_that_takes_too_long_is_counted(tmp_path: Path) -> None:
    service = service_of({"m": tiny_classifier(tmp_path / "m")}, LIMITS.model_copy(update={"request_timeout": 0.05}))
    main = service.models.main

    async def forever(*_: Any) -> Any:
        await asyncio.sleep(60)

    service.tokenizing.encode = forever
    service.batcher = SimpleNamespace(wait=lambda: 0.0, waiting=lambda: (0, 0))
    usage = Usage()
    with pytest.raises(HTTPException) as told:
        asyncio.run(service.infer(main, ["x" * 8, "y" * 500], usage))
    assert (told.value.status_code, told.value.detail) == (
        504,
        "no response within 0.05 seconds (serve.request_timeout)",
    )
    assert usage.tokens == 3 + main.metadata.max_length, "an estimate"
