"""What a live test records in MLflow and reports, from its counts to the sentence of its decision."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.core.errors import PlatformError
from raypath.components.core.labels import LabelKind
from raypath.components.serving.live.counts import LiveCounts, Moments, Trials
from raypath.components.serving.live.decision import Decision, LiveRules, progress
from raypath.components.serving.live.evidence_run import LiveRun, metrics_of, outcome_of, state_of
from raypath.components.serving.live.live_test import NO_PERMISSION, LiveTest, Trial, rules_of
from raypath.components.serving.live.paired_run import is_failure
from raypath.components.serving.live.watcher import _update_replicas
from raypath.components.serving.metering.holder import AccessError
from raypath.components.serving.model_versions import LoadFault, ModelVersion, ReplicaPlan, Role
from raypath.components.serving.params import ServeParams
from raypath.components.serving.replica import model_manager
from raypath.components.serving.replica.shadow import ShadowComparison, ShadowPredictions
from raypath.components.serving.replica.status import health_status, replica_status
from raypath.components.serving.spec import EndpointSpec
from raypath.components.tasks.catalog import task_type


class Client:
    """MLflow's client: keeps tags, batches and the end of a run."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.logged: list[Any] = []
        self.ended = ""

    def set_tag(self, run: str, key: str, value: str) -> None:
        assert run == "r"
        self.tags[key] = value

    def get_run(self, run: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(tags=self.tags))

    def log_batch(self, run: str, metrics: Any, tags: Any) -> None:
        self.logged.append(({each.key: (each.value, each.step) for each in metrics}, {t.key: t.value for t in tags}))

    def set_terminated(self, run: str, status: str) -> None:
        self.ended = status


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_run_of_a_test() -> None:
    client: Any = Client()
    run = LiveRun(client, "r")
    counts = LiveCounts(requests=4, agreed=3.0, skipped=2, champion=Trials(requests=5, failed=1))
    run.write("a1", counts)
    assert list(client.tags) == ["raypath.live_counts.a1"]
    assert run.read() == state_of({"raypath.live_counts.a1": counts.model_dump_json()})
    assert (run.read().counts, run.read().decision, run.read().done) == (counts, None, False)
    run.log(counts, "shadow: 4 of 1,000 requests")
    values = {"live/requests": 4.0, "live/skipped": 2.0, "live/agreement": 0.75, "live/errors_champion": 0.2}
    expected = {name: (value, 4) for name, value in values.items()}
    assert client.logged == [(expected, {"mlflow.note.content": "shadow: 4 of 1,000 requests"})]
    run.decide(Decision(True, "better"))
    assert json.loads(client.tags["raypath.live_decision"]) == {"promote": True, "reason": "better", "chance": 0.0}
    assert (client.tags["mlflow.note.content"], client.ended) == ("promoted: better", "FINISHED")
    assert run.read().decision == Decision(True, "better")
    run.finish("in service")
    assert client.tags["raypath.live_done"] == "in service"
    assert run.read().done
    assert [outcome_of(Decision(promote, "")) for promote in (True, False)] == ["promoted", "sent back"]


def test_metrics_that_are_not_known_are_left_out() -> None:
    assert metrics_of(LiveCounts()) == {"requests": 0.0, "skipped": 0.0}
    latency = Moments(count=2, total=2 * math.log(1.5), squares=1.0)
    found = metrics_of(LiveCounts(requests=2, agreed=2.0, latency=latency, challenger=Trials(requests=4, failed=1)))
    assert found == {"requests": 2.0, "skipped": 0.0, "agreement": 1.0, "latency": pytest.approx(1.5), "errors": 0.25}


def test_counting() -> None:
    counts, trials = LiveCounts(), Trials()
    counts.add_pair(0.5, champion=2.0, challenger=4.0)
    counts.add_pair(1.0, champion=0.0, challenger=0.0)
    assert (counts.requests, counts.agreed, counts.latency.count) == (2, 1.5, 2)
    assert counts.latency.total == pytest.approx(math.log(2))
    assert counts.latency.squares == pytest.approx(math.log(2) ** 2)
    for failed in (True, False, True):
        trials.add(failed)
    assert trials == Trials(requests=3, failed=2)


@pytest.mark.parametrize(("champion", "challenger", "shown"), [(0, 0, False), (1, 0, True), (0, 1, True), (1, 1, True)])
def test_progress_has_errors_where_there_are_some(champion: int, challenger: int, shown: bool) -> None:
    sides = {"champion": Trials(requests=9, failed=champion), "challenger": Trials(requests=8, failed=challenger)}
    line = progress(LiveCounts(requests=8, agreed=8.0, **sides), LiveRules(requests=2_000))
    errors = f", errors {challenger} of 8 against {champion} of 9" if shown else ""
    assert line == f"8 of 2,000 requests, agreement 100%{errors}"


@pytest.mark.parametrize("count", [29, 30])
def test_progress_has_a_latency_from_thirty_requests_on(count: int) -> None:
    line = progress(LiveCounts(latency=Moments(count=count, total=count * math.log(1.25))), LiveRules())
    assert line == "0 of 1,000 requests" + (", latency 1.25 times the champion's" if count == 30 else "")


def test_what_counts_as_a_failure_of_the_model() -> None:
    from fastapi import HTTPException

    from raypath.components.inference.dynamic_batching import QueueFull

    assert [is_failure(HTTPException(status)) for status in (499, 500, 503)] == [False, True, True]
    assert is_failure(ValueError())
    assert not is_failure(AccessError(429, "x"))
    assert not is_failure(QueueFull(1.0))
    serve = ServeParams(decide_requests=5, decide_agreement=0.5, decide_latency=2.0, decide_errors=0.25)
    assert rules_of(serve) == LiveRules(5, 0.5, 2.0, 0.25)


def _spec(**serve: Any) -> EndpointSpec:
    return EndpointSpec(name="m", tracking="t", url="http://x", route="/", serve=ServeParams(**serve), options={})


def test_a_test_without_a_trial() -> None:
    test = LiveTest(_spec(decide=True))
    assert (test.status(), test.requests) == ((None, NO_PERMISSION), 0)
    test.skip()
    assert test.counts.skipped == 0
    test.trial = Trial("m", 2, 1, Role.SHADOW, "r")
    test.skip()
    assert (test.counts.skipped, len(test.replica)) == (1, 12)
    test.merged = LiveCounts(requests=7)
    assert (test.requests, test.status()) == (7, (Role.SHADOW, "7 of 1,000 requests, agreement 0%"))
    loaded: Any = SimpleNamespace(name="m", version=2)
    assert test.is_on(loaded)
    assert not test.is_on(SimpleNamespace(name="m", version=1))  # type: ignore[arg-type]
    assert not test.is_on(SimpleNamespace(name="n", version=2))  # type: ignore[arg-type]


def test_replicas_follow_a_decision(caplog: pytest.LogCaptureFixture) -> None:
    trial, swapped = Trial("m", 2, 1, Role.CANARY, "r"), []

    def swap(name: str, version: int, *, before: int) -> None:
        swapped.append((name, version, before))

    def reject(name: str, version: int, *, before: int) -> None:
        raise PlatformError("m: version 2 cannot be loaded", fix="")

    assert _update_replicas(None, trial, True) == "the replicas follow the alias"
    assert [_update_replicas(swap, trial, promoted) for promoted in (True, False)] == ["in service"] * 2
    assert swapped == [("m", 2, 1), ("m", 1, 1)]
    assert _update_replicas(reject, trial, True) == "m: version 2 cannot be loaded" == caplog.messages[0]


def _replica(**changes: Any) -> Any:
    """The models of a replica, of which nothing is loaded but by number."""
    plan = ReplicaPlan(
        main=ModelVersion(name="m", version=3),
        canary=ModelVersion(name="m", version=4),
        canary_percent=2.5,
        shadow=ModelVersion(name="m", version=5),
        requested_at=7.0,
    )
    main = SimpleNamespace(name="m", version=3)
    pool = SimpleNamespace(loaded={"n": SimpleNamespace(version=9)})
    active = {Role.MAIN: main, Role.CANARY: main, Role.SHADOW: main}
    return SimpleNamespace(
        **{"plan": plan, "main": main, "pool": pool, "active": active, "faults": {}, "model_faults": {}, **changes}
    )


def test_the_status_of_a_replica() -> None:
    compared = ShadowComparison(5)
    compared.predictions, compared.agreed = 10, 9
    found = replica_status(_replica(), compared, requests=1.5)
    assert found.model_dump() == {
        **{"name": "m", "requested_at": 7.0, "versions": {"m": 3, "n": 9}, "faults": {}, "model_faults": {}},
        **{"canary": "version 4 serves 2.5% of requests", "shadow": compared.summary()},
        **{"requests": 1.5, "live_requests": 0},
    }
    bare = _replica(plan=ReplicaPlan(main=ModelVersion(name="m", version=3)), active={})
    assert (replica_status(bare, compared).canary, replica_status(bare, compared).shadow) == ("", "")
    assert replica_status(_replica(), None).shadow == ""


def test_faults_of_a_replica() -> None:
    faults = {
        Role.MAIN: LoadFault(name="m", version=4, reason="no file"),
        Role.CANARY: LoadFault(name="m", version=5, reason="away", rejected=False),
    }
    model_faults = {"n": LoadFault(name="n", version=9, reason="SECRET")}
    replica = _replica(faults=faults, model_faults=model_faults)
    found = replica_status(replica, None)
    assert found.canary == "version 5 cannot be loaded: away"
    assert found.fault_messages() == [
        ("main", "version 4 cannot be loaded: no file"),
        ("canary", "version 5 cannot be loaded: away"),
        ("model n", "version 9 cannot be loaded: SECRET"),
    ]
    assert (found.fault("m"), found.fault("n"), found.fault("o")) == (faults[Role.MAIN], model_faults["n"], None)
    assert health_status(replica) == (
        "degraded: version 4 was rejected, canary version 5 could not be fetched yet, model n version 9 was rejected"
    )
    assert health_status(_replica()) == "ok"


def test_the_status_of_a_live_test() -> None:
    test = LiveTest(_spec(decide=True))
    test.trial, test.counts = Trial("m", 4, 3, Role.CANARY, "r"), LiveCounts(requests=6, agreed=6.0)
    done = "6 of 1,000 requests, agreement 100%"
    found = replica_status(_replica(), ShadowComparison(5), live=test)
    assert (found.canary, found.live_requests) == (f"version 4 serves 2.5% of requests: {done}", 6)
    test.trial = Trial("m", 5, 3, Role.SHADOW, "r")
    assert replica_status(_replica(), ShadowComparison(5), live=test).shadow == f"version 5: {done}"
    test.trial, test._planned = None, Role.CANARY
    line = f"version 4 serves 2.5% of requests; {NO_PERMISSION}"
    assert replica_status(_replica(), None, live=test).canary == line


def test_shadow_traffic_is_counted() -> None:
    counted: list[Any] = []
    metrics: Any = SimpleNamespace(count=lambda *args: counted.append(args))
    live, compared = LiveTest(_spec(decide=True)), ShadowComparison(5)
    live.trial = Trial("m", 5, 3, Role.SHADOW, "r")
    shadow = ShadowPredictions(metrics, None, live)
    shadow._count(compared, [True, False, True])
    shadow._skip(compared)
    assert counted == [
        ("raypath_shadow_compared", 3, "5"),
        ("raypath_shadow_agreed", 2, "5"),
        ("raypath_shadow_skipped", 1, "5"),
    ]
    assert (compared.predictions, compared.agreed, compared.skipped, live.counts.skipped) == (3, 2, 1, 1)
    assert compared.summary() == "version 5: 66.7% of 3 predictions agree, 1 skipped"
    compared.failed = 2
    assert compared.summary().endswith(", 1 skipped, 2 failed")
    assert ShadowComparison(5).summary() == "version 5: none compared, 0 skipped"


def test_only_a_canary_and_a_shadow_may_be_unpromoted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def load(*args: Any) -> None:
        asked.append(args[-1])

    monkeypatch.setattr(model_manager, "load", load)
    manager = model_manager.ModelManager("", task_type("text_classification", LabelKind.STRING), threads=1)
    wanted = ModelVersion(name="m", version=2)
    manager._load(wanted)
    manager._load(wanted, promoted=False)
    assert asked == [True, False]
