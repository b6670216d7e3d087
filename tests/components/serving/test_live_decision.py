"""Decisions from counts of live requests, and a replica that counts its canary's errors, its shadow's predictions."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from raypath.components.core.errors import ParamsError
from raypath.components.evaluation.sequential import difference_interval, mean_interval, share_interval
from raypath.components.serving.live.counts import LiveCounts, Moments, Trials, merged
from raypath.components.serving.live.decision import (
    LONGEST,
    LiveRules,
    _agreement,
    _errors,
    _latency,
    decide_live,
    progress,
)
from raypath.components.serving.live.evidence_run import metrics_of, state_of
from raypath.components.serving.live.live_test import Trial, rules_of
from raypath.components.serving.model_versions import Role
from raypath.components.serving.params import ServeParams, check_decide
from raypath.components.serving.replica.loader import open_version
from tests.bench.live_promotions import Scenario, rates
from tests.components.serving.server import served, service_of
from tests.tiny_classifier import texts, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


def counts(requests: int = 1000, agreed: float = 0.98, latency: float = 1.0, failed: int = 0) -> LiveCounts:
    """Counts of so many requests; latencies spread by 40%."""
    log = math.log(latency)
    return LiveCounts(
        requests=requests,
        agreed=agreed * requests,
        latency=Moments(count=requests, total=log * requests, squares=(log**2 + 0.16) * requests),
        champion=Trials(requests=requests),
        challenger=Trials(requests=requests, failed=failed),
    )


def test_the_sentence_of_a_promotion_has_all_numbers() -> None:
    found = decide_live(counts(), LiveRules(), "shadow", "version 3")
    assert found is not None
    assert found.promote
    assert found.reason == (
        "as shadow on 1,000 live requests: agreement with version 3 98% (95% interval 96.2% to 99%), latency 1.00 "
        "times the champion's (0.96 to 1.04), errors 0 of 1,000 against 0 of 1,000 (-0.5 to 0.5 points); wanted "
        "agreement of at least 95%, latency of at most 1.1 times the champion's, at most 1.0 points more errors"
    )


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        ({"requests": 300, "agreed": 0.8}, "; wanted agreement of at least 95%"),
        ({"requests": 100, "latency": 2.0}, "; wanted latency of at most 1.1 times the champion's"),
        ({"requests": 60, "failed": 20}, "; wanted at most 1.0 points more errors"),
        (
            {"requests": 10_000, "agreed": 0.95},
            "; not certain after 10 times 1,000 requests: agreement of at least 95%",
        ),
    ],
)
def test_a_version_is_sent_back_before_the_minimum_once_it_is_certain(changes: dict[str, Any], ending: str) -> None:
    found = decide_live(counts(**changes), LiveRules(), "canary", "version 3")
    assert found is not None
    assert not found.promote
    assert found.reason.endswith(ending)


def responses(requests: int, length: float, agreed: float = 0.7) -> LiveCounts:
    """Counts of a language model: one response in ten a little longer or shorter."""
    log = math.log(length)
    tokens = Moments(count=requests, total=log * requests, squares=(log**2 + 0.01) * requests)
    return counts(requests, agreed).model_copy(update={"tokens": tokens})


def test_a_language_model_is_decided_on_by_errors_latency_and_length() -> None:
    rules = rules_of(ServeParams(), generates_text=True)
    assert rules == LiveRules(agreement=0.0, tokens=1.25)
    found = decide_live(responses(1000, 1.02), rules, "shadow", "version 3")
    assert found is not None
    assert found.promote, "although 30% of the tokens differ"
    assert found.reason == (
        "as shadow on 1,000 live requests: agreement of the next tokens with version 3 70% (95% interval 62.7% to "
        "76.6%), latency a token 1.00 times the champion's (0.96 to 1.04), length 1.02 times the champion's (1.01 to "
        "1.03), errors 0 of 1,000 against 0 of 1,000 (-0.5 to 0.5 points); wanted latency a token of at most 1.1 times "
        "the champion's, length of at most 1.25 times the champion's, at most 1.0 points more errors"
    )
    longer = decide_live(responses(60, 1.6), rules, "canary", "version 3")
    assert longer is not None
    assert not longer.promote
    assert longer.reason.endswith("; wanted length of at most 1.25 times the champion's")
    assert decide_live(responses(60, 1.2), rules, "canary", "version 3") is None
    assert progress(responses(60, 1.6), rules) == (
        "60 of 1,000 requests, agreement 70%, latency 1.00 times the champion's, length 1.60 times"
    )
    failed = decide_live(
        responses(1000, 1.0).model_copy(update={"challenger": Trials(requests=1000, failed=60)}), rules, "canary", "v"
    )
    assert failed is not None
    assert failed.reason.endswith("; wanted at most 1.0 points more errors")


def test_lengths_and_seconds_a_token_are_counted() -> None:
    found = LiveCounts()
    found.add_responses(0.5, (2.0, 10), (3.0, 30))
    found.add_responses(1.0, (1.0, 0), (1.0, 0))
    assert (found.requests, found.agreed, found.tokens.count) == (2, 1.5, 2)
    assert found.tokens.total == pytest.approx(math.log(3))
    assert found.latency.total == pytest.approx(math.log(0.5))
    assert merged([found, found]).tokens.ratio == pytest.approx(math.sqrt(3))
    assert metrics_of(found)["tokens"] == pytest.approx(math.sqrt(3))


def test_it_waits_for_the_minimum_and_while_nothing_is_certain() -> None:
    assert decide_live(LiveCounts(), LiveRules(), "shadow", "version 3") is None
    assert decide_live(counts(999), LiveRules(), "shadow", "version 3") is None
    assert decide_live(counts(1000, agreed=0.955), LiveRules(), "shadow", "version 3") is None
    few = counts().model_copy(update={"latency": Moments(count=29)})
    assert decide_live(few, LiveRules(), "shadow", "version 3") is None
    assert decide_live(counts(1000 * LONGEST, agreed=0.955), LiveRules(), "shadow", "version 3") is not None


def test_a_limit_that_is_met_exactly_holds() -> None:
    found = counts(1000, agreed=0.9, latency=1.2, failed=30)
    usual = (_agreement(found, LiveRules(), "x"), _latency(found, LiveRules()), _errors(found, LiveRules()))
    assert [(each.holds, each.fails) for each in usual] == [(False, True)] * 3
    differ = share_interval(found.requests - found.agreed, found.requests)
    low, high = 1 - differ.high, 1 - differ.low
    assert _agreement(found, LiveRules(agreement=low), "x").holds
    assert not _agreement(found, LiveRules(agreement=high), "x").fails
    logs = mean_interval(found.latency.total, found.latency.squares, found.latency.count)
    assert _latency(found, LiveRules(latency=math.exp(logs.high))).holds
    assert not _latency(found, LiveRules(latency=math.exp(logs.low))).fails
    rates = (share_interval(each.failed, each.requests) for each in (found.challenger, found.champion))
    errors = difference_interval(*rates)
    assert _errors(found, LiveRules(errors=errors.high)).holds
    assert not _errors(found, LiveRules(errors=errors.low)).fails


def test_all_fail_before_anything_was_compared() -> None:
    lost = LiveCounts(champion=Trials(requests=50), challenger=Trials(requests=6, failed=6))
    found = decide_live(lost, LiveRules(), "canary", "version 3")
    assert found is not None
    assert found.reason.startswith("as canary on 0 live requests: no prediction compared yet, latency not known yet, ")


def test_progress_is_one_line() -> None:
    assert progress(counts(412, agreed=404 / 412), LiveRules()) == (
        "412 of 1,000 requests, agreement 98%, latency 1.00 times the champion's"
    )
    assert progress(LiveCounts(), LiveRules()) == "0 of 1,000 requests"


def test_counts_of_replicas_add_up_as_tags_of_a_run() -> None:
    parts = [counts(300, failed=2), counts(50, latency=2.0), LiveCounts(skipped=4)]
    tags = {f"raypath.live_counts.{n}": each.model_dump_json() for n, each in enumerate(parts)}
    found = state_of({**tags, "other": "x"})
    assert found.counts == merged(parts)
    assert (found.counts.requests, found.counts.challenger.failed, found.counts.skipped) == (350, 2, 4)
    assert (found.decision, found.done) == (None, False)


def test_a_worse_version_is_rarely_promoted_and_an_equal_one_nearly_always() -> None:
    rules = LiveRules(requests=500, agreement=0.9)
    assert rates(Scenario("equal", agreement=0.97), 15, rules)[0] == 1.0
    assert rates(Scenario("agreement", agreement=0.89), 15, rules)[0] == 0.0
    assert rates(Scenario("latency", latency=1.15), 15, rules)[0] == 0.0
    promoted, requests = rates(Scenario("errors", errors=0.2), 15, rules)
    assert (promoted, requests < 100) == (0.0, True)


def test_a_decision_needs_a_canary_or_a_shadow() -> None:
    with pytest.raises(ParamsError, match=r"serve\.decide needs a canary or a shadow"):
        check_decide(ServeParams(decide=True))
    check_decide(ServeParams(decide=True, shadow="challenger"))


def on_trial(tmp_path: Path, role: Role, seed: int, **changes: Any) -> Any:
    """A replica whose version 2 is on trial."""
    service = service_of({"m": tiny_classifier(tmp_path / "m")})
    loaded = open_version(Path(tiny_classifier(tmp_path / "v2", seed=seed).uri), "m", 2, threads=1)
    service.models.active[role] = replace(loaded, **changes)
    service.live.trial = Trial("m", 2, 1, role, "run")
    service.shadow.set_version(service.models.active[role])
    return service


async def _idle(service: Any) -> None:
    async with asyncio.timeout(20):
        while service.shadow._under_way is not None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("seed", "agree"), [(0, True), (5, False)])
def test_a_replica_compares_both_versions_on_requests_that_had_their_response(
    tmp_path: Path, seed: int, agree: bool
) -> None:
    service = on_trial(tmp_path, Role.SHADOW, seed)
    with served(service) as url, httpx.Client(base_url=url, timeout=30) as client:
        for lines in (texts(10), texts(5)):
            assert client.post("/predict", json={"text": lines}).json()["version"] == 1
        assert client.post("/predict", json={"text": []}).status_code == 422
        for _ in range(200):
            if service.shadow._under_way is None:
                break
            client.get("/healthz")
    found = service.live.counts
    compared = found.requests
    assert 1 <= compared <= 2
    assert compared + found.skipped == 2
    assert (found.agreed == compared) == agree
    assert found.latency.count == compared
    assert found.champion == found.challenger == Trials(requests=compared)
    assert service.shadow.compared.predictions in (5, 10, 15)


def test_a_canary_that_fails_is_counted_for_each_request_that_it_serves(tmp_path: Path) -> None:
    class Broken:
        budget = 100

        def record(self, rows: Any) -> Any:
            raise ValueError("SECRET tea")

    broken: Any = Broken()
    service = on_trial(tmp_path, Role.CANARY, 0, engine=broken)
    service.models.plan = service.models.plan.model_copy(update={"canary_percent": 100.0})
    with served(service) as url:
        for _ in range(3):
            assert httpx.post(f"{url}/predict", json={"text": "tea"}).status_code == 500
        assert httpx.post(f"{url}/predict", json={"text": []}).status_code == 422
    assert service.live.counts.challenger == Trials(requests=3, failed=3)
    assert "SECRET" not in service.live.counts.model_dump_json()
    role, line = service.live.status()
    assert (role, line) == (Role.CANARY, "0 of 1,000 requests, errors 3 of 3 against 0 of 0")


@pytest.mark.parametrize("kind", ["string", "set", "number"])
def test_predictions_agree_by_name_and_numbers_within_a_tenth_of_their_spread(kind: str, tmp_path: Path) -> None:
    from raypath.components.models.metadata import read_metadata
    from raypath.components.tasks.catalog import load_task

    labels = ("a", "b", "c")
    scales = {"means": (0.0,) * 3, "scales": (1.0, 10.0, 1.0)} if kind == "number" else {}
    task = load_task(read_metadata(Path(tiny_classifier(tmp_path / "m", labels, kind, **scales).uri)))
    turned = ("c", "a", "b")
    scales = {"means": (0.0,) * 3, "scales": (1.0, 1.0, 10.0)} if kind == "number" else {}
    other = load_task(read_metadata(Path(tiny_classifier(tmp_path / "o", turned, kind, **scales).uri)))
    import numpy as np

    rows = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]])
    moved = rows[:, [2, 0, 1]].copy()
    assert task.agrees(rows, other, moved) == [True, True]
    moved[1] = [0.95, 0.01, 0.04] if kind != "number" else [0.1, 0.1, 0.8 + 1.1]
    assert task.agrees(rows, other, moved) == [True, False]
    if kind == "number":
        moved[1, 2] = 0.8 + 0.9
        assert task.agrees(rows, other, moved) == [True, True]
