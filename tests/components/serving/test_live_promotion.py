"""A challenger on a real endpoint of two replicas: promoted by live requests as a shadow, sent back as a canary."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from raypath.components.core.artifacts import Release
from raypath.components.core.context import Context, Tracking
from raypath.components.register import RegisterParams, register
from raypath.components.registry import aliases, live
from raypath.components.registry import client as registry
from raypath.components.registry.signing.keys import signing_key, trusted_keys
from raypath.components.registry.signing.records import Permission, sign_permission, verify_permission
from raypath.components.serve import serve
from raypath.components.serving.live import watcher
from raypath.components.serving.live.counts import LiveCounts, Moments, Trials
from raypath.components.serving.live.live_test import LiveTest, Trial
from raypath.components.serving.model_versions import Role
from raypath.components.serving.params import ServeParams
from raypath.components.serving.replica import status
from raypath.components.serving.spec import EndpointSpec
from raypath.components.tracking.tags import DECIDED, LIVE, LIVE_DONE, PREVIOUS_CHAMPION, REASON
from raypath.deploy.api.services import endpoint_status
from tests.tiny_classifier import texts, tiny_classifier, tiny_dataset, tiny_report

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

COUNTS = "raypath.live_counts."
SHADOW = ServeParams(
    replicas=2, threads=1, shadow="challenger", decide=True,
    decide_requests=60, decide_agreement=0.9, decide_latency=3.0, decide_errors=0.2,
)  # fmt: skip
CANARY = SHADOW.model_copy(
    update={"shadow": None, "canary": "challenger:20", "decide_requests": 100_000, "replicas": 1}
)


@pytest.fixture(scope="module")
def shop(serve_url: str, mlflow_uri: str, tmp_path_factory: Any) -> SimpleNamespace:
    place = tmp_path_factory.mktemp("live")
    tracking = Tracking(uri=mlflow_uri, experiment="live", spool=str(place / "spool"))

    def context(step: str) -> Context:
        folder = place / f"{step}-{time.monotonic_ns()}"
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True)
        return Context(
            step, folder / "out", folder / "scratch", workers=1, tracking=tracking, key=folder.name, serve_url=serve_url
        )

    def release(name: str, right: float, seed: int = 0) -> Release:
        """Right on this share of 100 test rows; one more row than the champion is a chance of 75%, two of 87.5%."""
        model = tiny_classifier(place / f"{name}-{right}-{seed}", seed=seed)
        data = tiny_dataset(place / f"{name}-data-{right}-{seed}", model, rows=100)
        report = tiny_report(place / f"{name}-report-{right}-{seed}", model, data, right)
        return register.fn(context("register"), model, report, RegisterParams(name=name, better_on="accuracy"))

    return SimpleNamespace(url=serve_url, uri=mlflow_uri, context=context, release=release)


def ask(url: str, until: Callable[[], object], seconds: float = 240.0) -> set[int]:
    """Send requests, one after the other, until something is true; returns the versions that answered."""
    end, found = time.monotonic() + seconds, set()
    lines = texts(200)
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        while not until():
            assert time.monotonic() < end
            for _ in range(10):
                reply = client.post("/predict", json={"text": lines[int(time.monotonic() * 1000) % 200]})
                assert reply.status_code == 200, reply.text
                found.add(reply.json()["version"])
                time.sleep(0.08)  # a replica writes its counts every five seconds
    return found


def progress(name: str) -> tuple[int, str]:
    """Requests that count by now, and what `raypath status` says."""
    states = status.replica_statuses(name)
    messages = endpoint_status("", name, 2, states).messages
    return max((each.live_requests for each in states), default=0), "; ".join(f"{m.role} {m.text}" for m in messages)


def run_tags(client: Any, name: str, version: int) -> dict[str, str]:
    tags = client.get_model_version(name, str(version)).tags
    permission = verify_permission(name, version, tags, trusted_keys(None))
    found: dict[str, str] = client.get_run(permission.run).data.tags
    return found


def kill_replica(name: str) -> None:
    """Kill one replica as a crash would."""
    import ray
    from ray.util import list_named_actors

    found = [
        each for each in list_named_actors(all_namespaces=True) if each["name"].startswith(f"SERVE_REPLICA::{name}#")
    ]
    ray.kill(ray.get_actor(found[0]["name"], namespace=found[0]["namespace"]), no_restart=True)


@pytest.mark.slow
def test_live_requests_promote_a_shadow_also_when_a_replica_is_killed(shop: SimpleNamespace) -> None:
    from ray import serve as ray_serve

    shop.release("live", 0.60)
    second = shop.release("live", 0.62)
    assert (second.alias, second.serving, 0.75 <= second.chance < 0.9) == ("challenger", 1, True)
    serve.fn(shop.context("serve"), second, SHADOW.model_copy(update={"decide_requests": 150}))
    with registry.mlflow_client(shop.uri) as client:
        ask(shop.url, lambda: sum(key.startswith(COUNTS) for key in run_tags(client, "live", 2)) == 2)
        ask(shop.url, lambda: progress("live")[0] >= 10)
        before, line = progress("live")
        assert f"shadow version 2: {before} of 150 requests, agreement 100%" in line
        kill_replica("live")
        ask(shop.url, lambda: LIVE_DONE in run_tags(client, "live", 2))
        tags, found = client.get_model_version("live", "2"), run_tags(client, "live", 2)
        assert registry.read_aliases(client, "live") == {"champion": 2}
        assert aliases.trusted_champion(client, "live", None).version == 2
    reason = tags.tags[REASON]
    assert reason.startswith("as shadow on "), reason
    assert "agreement with version 1 100% (95% interval " in reason
    assert (tags.tags[DECIDED], tags.tags[PREVIOUS_CHAMPION]) == ("champion", "1")
    assert f"**champion**: {reason}" in tags.description
    counts = [json.loads(text) for key, text in found.items() if key.startswith(COUNTS)]
    assert len(counts) >= 2, "of both replicas"
    assert sum(each["requests"] for each in counts) >= 150
    assert found[LIVE_DONE] == "in service"
    assert not any(line[:20] in text for line in texts(200) for text in found.values())
    assert ask(shop.url, lambda: {s.versions["live"] for s in status.replica_statuses("live")} == {2}) <= {1, 2}
    ray_serve.delete("live")


@pytest.mark.slow
def test_a_canary_that_predicts_otherwise_is_sent_back_at_once(shop: SimpleNamespace) -> None:
    from ray import serve as ray_serve

    shop.release("other", 0.60)
    second = shop.release("other", 0.62, seed=1)
    assert (second.alias, second.serving) == ("challenger", 1)
    endpoint = serve.fn(shop.context("serve"), second, CANARY)
    with registry.mlflow_client(shop.uri) as client:
        answered = ask(endpoint.url, lambda: LIVE_DONE in run_tags(client, "other", 2))
        assert registry.read_aliases(client, "other") == {"champion": 1}
        tags = client.get_model_version("other", "2")
    assert answered == {1, 2}
    assert tags.tags[REASON].endswith("; wanted agreement of at least 90%"), "long before 100,000 requests"
    assert tags.description.startswith("**sent back**: as canary on ")
    assert ask(endpoint.url, lambda: not any(s.canary for s in status.replica_statuses("other"))) <= {1, 2}
    ray_serve.delete("other")


def proven(requests: int) -> LiveCounts:
    """Counts that allow a promotion under SHADOW's thresholds, if there are enough of them."""
    sides = {side: Trials(requests=requests) for side in ("champion", "challenger")}
    return LiveCounts(requests=requests, agreed=requests, latency=Moments(count=requests, squares=0.01), **sides)


def replica() -> LiveTest:
    spec = EndpointSpec(name="m", tracking="", url="", route="/", serve=SHADOW, options={})
    return LiveTest(spec)


def trial_of(uri: str, name: str) -> Trial:
    with registry.mlflow_client(uri) as client:
        permission = live.permit(client, "live", name, 2, 1, None)
        assert live.permit(client, "live", name, 2, 1, None) == permission, "once"
    return Trial(name, 2, 1, Role.SHADOW, permission.run)


def test_counts_of_replicas_add_up_and_an_interrupted_decision_goes_on(
    shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.release("polled", 0.60)
    shop.release("polled", 0.62)
    trial = trial_of(shop.uri, "polled")
    first, second = replica(), replica()
    assert watcher.look(shop.uri, first, trial, proven(40)).requests == 40

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(watcher, "promote_live", killed)
        with pytest.raises(KeyboardInterrupt):
            watcher.look(shop.uri, second, trial, proven(30))
    with registry.mlflow_client(shop.uri) as client:
        assert registry.read_aliases(client, "polled")["champion"] == 1
        decided = run_tags(client, "polled", 2)["raypath.live_decision"]
        watcher.look(shop.uri, first, trial, proven(45))
        assert registry.read_aliases(client, "polled")["champion"] == 1, "the other replica has the claim"
        monkeypatch.setattr(watcher, "CLAIM_SECONDS", 0.0)
        watcher.look(shop.uri, second, trial, None)
        assert registry.read_aliases(client, "polled") == {"champion": 2}
        found = run_tags(client, "polled", 2)
        assert (found["raypath.live_decision"], found[LIVE_DONE]) == (decided, "the replicas follow the alias")
        assert json.loads(decided)["reason"] == client.get_model_version("polled", "2").tags[REASON]
        assert "as shadow on 70 live requests" in decided
        # What a person decides afterwards stays.
        aliases.rollback(shop.uri, "polled")
        watcher.look(shop.uri, first, trial, None)
        assert registry.read_aliases(client, "polled") == {"champion": 1}


def test_a_test_against_an_earlier_champion_decides_nothing(shop: SimpleNamespace) -> None:
    for right in (0.60, 0.62, 0.9):
        shop.release("moved", right)
    trial = trial_of(shop.uri, "moved")
    watcher.look(shop.uri, replica(), trial, proven(70))
    with registry.mlflow_client(shop.uri) as client:
        assert registry.read_aliases(client, "moved")["champion"] == 3
        assert run_tags(client, "moved", 2)[LIVE_DONE] == "version 3 of moved is champion by now"


def test_a_permission_is_for_one_version_and_one_champion(shop: SimpleNamespace) -> None:
    from raypath.components.core.errors import DataError

    shop.release("forged", 0.60)
    shop.release("forged", 0.62)
    with registry.mlflow_client(shop.uri) as client:
        tagged = sign_permission(signing_key(None), "forged", 1, Permission(1, "run"))
        for tag, value in ((LIVE, tagged), (PREVIOUS_CHAMPION, "1")):
            client.set_model_version_tag("forged", "2", tag, value)
        client.set_registered_model_alias("forged", "champion", "2")
        with pytest.raises(DataError, match="was made champion without a signature"):
            aliases.trusted_champion(client, "forged", None)
        client.set_model_version_tag(
            "forged", "2", LIVE, sign_permission(signing_key(None), "forged", 2, Permission(7, "run"))
        )
        with pytest.raises(DataError, match="was made champion without a signature"):
            aliases.trusted_champion(client, "forged", None)
        client.set_model_version_tag(
            "forged", "2", LIVE, sign_permission(signing_key(None), "forged", 2, Permission(1, "run"))
        )
        assert aliases.trusted_champion(client, "forged", None).version == 2


def test_a_version_that_the_test_rows_do_not_speak_for_is_not_on_trial(
    shop: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    from raypath.components.serve import _permit

    shop.release("worse", 0.62)
    worse = shop.release("worse", 0.60)
    assert worse.chance < 0.25
    _permit(shop.context("serve"), worse, SHADOW)
    assert "its chance of being better on the test rows is 1" in caplog.text
    with registry.mlflow_client(shop.uri) as client:
        assert LIVE not in client.get_model_version("worse", "2").tags


def test_the_cluster_keeps_one_claim(ray_head: Any, tmp_path: Path) -> None:
    from raypath.components.serving.control.spec_store import claim

    work = f"work/{tmp_path.name}"
    assert claim(work, "a", 60.0)
    assert not claim(work, "b", 60.0)
    assert claim(work, "a", 0.0)
    assert claim(work, "b", 60.0)
