"""A version put in service on two real replicas: all of them have it, or the one before has its alias again."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from raypath.components import PlatformError, Unavailable, UserError
from raypath.components.core.context import Tracking
from raypath.components.inference import golden_examples as examples
from raypath.components.register import RegisterParams, register
from raypath.components.registry import aliases, tags
from raypath.components.registry import client as registry
from raypath.components.serve import serve
from raypath.components.serving.control import rollout, spec_store
from raypath.components.serving.model_versions import LoadFault
from raypath.components.serving.params import ServeParams
from raypath.components.serving.replica import status
from raypath.components.serving.replica.status import ReplicaStatus
from raypath.deploy.api.services import _endpoint, endpoint_status
from raypath.deploy.cli.status import endpoint_lines
from raypath.deploy.local.ray_connection import connection
from tests.components.broken import wrong
from tests.tiny_classifier import tiny_classifier, tiny_dataset, tiny_report

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

PARAMS = ServeParams(replicas=2, threads=1, extra_models=("side",), canary="next:50", shadow="later")
BROKEN = r"version 2 cannot be loaded: its output for example \d is off"


@pytest.fixture(scope="module")
def shop(serve_url: str, mlflow_uri: str, tmp_path_factory: Any) -> SimpleNamespace:
    """Version 1 of `main` in service, with version 1 of `side` beside it; version 2 of both is broken, 3 is good."""
    from raypath.components import Context

    place = tmp_path_factory.mktemp("rollout")
    tracking = Tracking(uri=mlflow_uri, experiment="rollout", spool=str(place / "spool"))

    def context(step: str) -> Any:
        folder = place / f"{step}-{time.monotonic_ns()}"
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True)
        return Context(
            step, folder / "out", folder / "scratch", workers=1, tracking=tracking, key=folder.name, serve_url=serve_url
        )

    def release(name: str, version: int) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            if version == 2:
                patch.setattr(examples, "record", wrong)
            model = tiny_classifier(place / f"{name}-{version}", seed=version)
            data = tiny_dataset(place / f"{name}-data-{version}", model, rows=10)
            report = tiny_report(place / f"{name}-report-{version}", model, data, version / 3)
            return register.fn(context("register"), model, report, RegisterParams(name=name))

    first = release("main", 1)
    release("side", 1)
    serve.fn(context("serve"), first, PARAMS)
    return SimpleNamespace(url=serve_url, uri=mlflow_uri, context=context, release=release)


def champion(shop: SimpleNamespace, name: str) -> int:
    found = aliases.alias_target(shop.uri, name, tags.CHAMPION)
    assert found is not None
    return found[0]


def settled(name: str, version: int, seconds: float = 20.0) -> None:
    """Both replicas have it."""
    end = time.monotonic() + seconds
    while [state.versions.get(name) for state in status.replica_statuses("main")] != [version] * 2:
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_version_that_is_refused_loses_its_alias_in_a_run(shop: SimpleNamespace) -> None:
    settled("main", 1)
    second = shop.release("main", 2)
    assert (second.serving, champion(shop, "main")) == (2, 2)
    with pytest.raises(PlatformError, match=f"main: {BROKEN}.*; version 1 is champion"):
        serve.fn(shop.context("serve"), second, PARAMS)
    assert champion(shop, "main") == 1
    assert aliases.rejection_reason(shop.uri, "main", 2).startswith("its output for example")
    settled("main", 1)
    end = time.monotonic() + 20
    while (told := httpx.get(f"{shop.url}/healthz", trust_env=False).json())["status"] != "ok":
        assert told == {"name": "main", "version": 1, "status": "degraded: version 2 was rejected"}
        assert time.monotonic() < end


def test_and_in_a_promotion(shop: SimpleNamespace) -> None:
    before = aliases.promote(shop.uri, "main", 2)
    assert aliases.rejection_reason(shop.uri, "main", 2) == "", "who promotes it asks for another try"
    with pytest.raises(PlatformError, match=BROKEN):
        rollout.swap_version("main", 2, before=before)
    assert (champion(shop, "main"), before) == (1, 1)
    assert aliases.rejection_reason(shop.uri, "main", 2)


def test_a_promotion_ends_when_every_replica_has_it(shop: SimpleNamespace) -> None:
    shop.release("main", 3)
    rollout.swap_version("main", 3)
    settled("main", 3, 0.0)


def test_an_endpoint_of_another_version_of_raypath_is_named(shop: SimpleNamespace) -> None:
    spec = rollout.deployed_specs()[0]
    older = spec.model_dump_json().replace('"serve":{', '"serve":{"gone":1,')
    spec_store._kv()._internal_kv_put(b"main", older.encode(), namespace=spec_store._NAMESPACE)
    try:
        with pytest.raises(PlatformError, match=r"endpoint main was deployed by another version .*run its workflow"):
            rollout.swap_version("main", 3)
        with pytest.raises(UserError, match="no model other is in service"):
            rollout.swap_version("other", 1)
    finally:
        spec_store.save_spec(spec)
    assert rollout.deployed_specs() == [spec]


def test_one_replica_that_lags_is_waited_for_and_one_that_refuses_ends_it(
    shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = rollout.deployed_specs()[0]
    fault = LoadFault(name="main", version=3, reason="4 MiB of memory are free")

    def state(version: int, asked: float, **faults: LoadFault) -> ReplicaStatus:
        return ReplicaStatus(name="main", requested_at=asked, versions={"main": version}, faults=faults)

    told: list[list[ReplicaStatus]] = [
        [],
        [state(3, 7.0)],
        [state(3, 7.0), state(1, 6.0)],
        [state(3, 7.0), state(3, 7.0)],
    ]
    monkeypatch.setattr(rollout, "replica_statuses", lambda *_: told.pop(0))
    rollout.wait_for_replicas(spec, "main", 3, 10.0, 7.0, pause=0.0)
    assert told == []
    told += [[state(3, 7.0), state(1, 6.0, main=fault)], [state(3, 7.0), state(1, 7.0, main=fault)]]
    with pytest.raises(rollout.VersionRejected, match="version 3 cannot be loaded: 4 MiB"):
        rollout.wait_for_replicas(spec, "main", 3, 10.0, 7.0, pause=0.0)
    assert told == [], "what it said of an earlier plan does not count"
    away = fault.model_copy(update={"rejected": False, "reason": "MLflow does not answer"})
    told += [[state(3, 7.0), state(1, 7.0, main=away)]]
    with pytest.raises(Unavailable, match="MLflow does not answer"):
        rollout.wait_for_replicas(spec, "main", 3, -1.0, 7.0, pause=0.0)


def test_another_model_is_put_in_service_and_refused_like_the_main_one(shop: SimpleNamespace) -> None:
    def asked() -> tuple[int, int]:
        reply = httpx.post(f"{shop.url}/models/side/predict", json={"text": "tea"}, trust_env=False, timeout=30)
        return reply.status_code, reply.json().get("version")

    assert asked() == (200, 1)
    shop.release("side", 2)
    with pytest.raises(PlatformError, match=f"side: {BROKEN}.*; version 1 is champion"):
        rollout.swap_version("side", 2, before=1)
    assert (champion(shop, "side"), asked()) == (1, (200, 1))
    shop.release("side", 3)
    rollout.swap_version("side", 3)
    settled("side", 3, 0.0)
    assert asked() == (200, 3)
    settled("main", 3, 0.0)


def test_canary_and_shadow_are_who_has_their_aliases(shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with registry.mlflow_client(shop.uri) as client:
        client.set_registered_model_alias("main", "next", "1")
        client.set_registered_model_alias("main", "later", "1")
    rollout.swap_version("main", 3)
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=30) as client:
        versions = [client.post("/predict", json={"text": f"tea {n}"}).json()["version"] for n in range(40)]
    assert set(versions) == {1, 3}
    states = status.replica_statuses("main")
    assert [state.canary for state in states] == ["version 1 serves 50% of requests"] * 2
    assert all(state.shadow.startswith("version 1: ") for state in states)
    found = endpoint_status(shop.url, "main", status.running_replicas("main"), states)
    told = endpoint_lines(found)
    assert told[0].split()[:2] == ["endpoint", "up"]
    assert "main version 3, 2 replicas, " in told[0]
    assert told[1].split() == ["canary", "version", "1", "serves", "50%", "of", "requests"]
    monkeypatch.setattr(connection, "connect", lambda home: None)
    same = _endpoint(Path(), shop.url, "main")
    assert same is not None
    assert same.messages == found.messages, "the status asks the same"
    assert _endpoint(Path(), shop.url + "/elsewhere", "nobody") is None


def test_an_alias_that_was_moved_meanwhile_is_left_alone(shop: SimpleNamespace) -> None:
    assert aliases.demote(shop.uri, "main", 2) == 3
    assert champion(shop, "main") == 3
