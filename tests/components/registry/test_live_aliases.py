"""Decisions of the gate and of live requests: the aliases and tags that they set, and what pages show of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.registry import aliases, gate, live, presentation
from raypath.components.registry.evidence import Decision
from raypath.components.registry.signing import keys, records
from raypath.components.registry.signing.check import check_version
from raypath.components.tracking.tags import (
    DECIDED,
    LIVE_DONE,
    PREVIOUS_CHAMPION,
    REASON,
    REJECTED,
    SIGNATURE,
)
from tests.components.registry.memory_registry import URI, MemoryRegistry
from tests.raised import raised


@pytest.mark.parametrize("promote", [True, False])
def test_the_gate_decides_once(registry: MemoryRegistry, promote: bool) -> None:
    seen: list[Any] = []

    def compare(champion: Any, tags: dict[str, str]) -> Decision:
        seen.append((champion and champion.version, SIGNATURE in tags))
        return Decision(promote, "because")

    def resolve(version: int) -> tuple[str, str]:
        return gate.resolve_alias(registry, "shop", version, None, compare)

    aliases.promote(URI, "shop", 1)
    registry.calls.clear()
    alias = "champion" if promote else "challenger"
    assert resolve(2) == (alias, "because")
    assert seen == [(1, True)]
    assert registry.calls[0] == ("tag", "2", REASON, "because")
    assert registry.calls[-1] == ("tag", "2", DECIDED, alias)
    assert ("alias", alias, "2") in registry.calls
    assert registry.aliases() == ({"champion": "2"} if promote else {"champion": "1", "challenger": "2"})
    before = len(registry.calls)
    assert resolve(2) == (alias, "because")
    assert (len(seen), len(registry.calls)) == (1, before), "what was decided stays"
    if promote:
        del registry.tags("shop", 2)[DECIDED]
        assert resolve(2) == ("champion", "because"), "interrupted before the decision was recorded"
        assert (len(seen), registry.calls[-1]) == (1, ("tag", "2", DECIDED, "champion"))


def test_live_requests_have_a_permission_and_a_run(registry: MemoryRegistry) -> None:
    found = live.permit(registry, "home", "shop", 2, 1, None)
    assert (found.previous, found.run) == (1, "run-0")
    assert ("search", ["id of home"], "tags.`raypath.id` = 'live/shop/2/1'", 1) in registry.calls
    [made] = [call[1:] for call in registry.calls if call[0] == "run"]
    tags = {"raypath.id": "live/shop/2/1", "raypath.kind": "live test", "raypath.version": "shop/2"}
    assert made == ("id of home", "shop 2 against 1, live requests", tags)
    assert live.permit(registry, "home", "shop", 2, 1, None) == found
    trusted = keys.trusted_keys(None)
    assert records.verify_permission("shop", 2, registry.tags("shop", 2), trusted) == found
    assert live.permit(registry, "home", "shop", 2, 3, None).run == "run-1", "against another champion"
    assert live.permit(registry, "home", "shop", 2, 1, None).run == "run-0", "its run is found again"
    registry.runs["run-0"].data.tags[LIVE_DONE] = "now"
    assert live.permit(registry, "home", "shop", 2, 1, None).run == "run-2", "the one before is decided"


def test_live_requests_promote_a_version(registry: MemoryRegistry) -> None:
    aliases.promote(URI, "shop", 1)
    live.permit(registry, "home", "shop", 2, 1, None)
    registry.aliases().update(challenger="2", canary="2", best="3")
    registry.tags("shop", 2)[REJECTED] = "once"
    registry.models["shop"].versions[2].description = "About it."
    for _ in range(2):
        live.promote_live(registry, "shop", 2, 1, "faster")
    assert registry.aliases() == {"champion": "2", "best": "3"}
    tags = registry.tags("shop", 2)
    assert (tags[REASON], tags[PREVIOUS_CHAMPION], tags[DECIDED]) == ("faster", "1", "champion")
    assert REJECTED not in tags
    assert registry.models["shop"].versions[2].description == "**champion**: faster\n\nAbout it."
    check_version("shop", 2, tags, keys.trusted_keys(None), promoted=True)
    registry.aliases()["champion"] = "3"
    text = "Superseded: version 3 of shop is champion by now"
    assert raised(lambda: live.promote_live(registry, "shop", 2, 1, "faster")) == text


def test_live_requests_send_a_version_back(registry: MemoryRegistry) -> None:
    registry.aliases().update(champion="1", challenger="2", canary="2")
    for _ in range(2):
        live.send_back(registry, "shop", 2, "slower")
    live.send_back(registry, "shop", 9, "gone")
    assert registry.aliases() == {"champion": "1"}
    assert registry.tags("shop", 2)[REASON] == "slower"
    assert registry.models["shop"].versions[2].description == "**sent back**: slower\n\n"


def test_a_decision_is_shown_once(registry: MemoryRegistry) -> None:
    found = registry.models["shop"].versions[1]
    found.description = None
    for _ in range(2):
        presentation.show_decision(registry, "shop", 1, "champion", "better")
    assert found.description == "**champion**: better\n\n"


def test_a_new_version_has_a_description_metrics_and_a_view(
    registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[Any] = []
    monkeypatch.setattr(presentation, "save_view", lambda _, *given: views.append(given))
    monkeypatch.setattr(presentation.time, "time", lambda: 7.0)
    sent: list[Any] = []

    def log(run: str, metrics: Any) -> None:
        sent.append((run, [(m.key, m.value, m.timestamp, m.step, m.model_id, m.run_id) for m in metrics]))

    monkeypatch.setattr(registry, "log_batch", log, raising=False)
    logged = SimpleNamespace(source_run_id="run", model_id="m-1", experiment_id="7")
    version = registry.models["shop"].versions[1]
    tags = {"raypath.task": "t", "raypath.metric.ece": "0.25", "raypath.metric.f1": "0.5", "raypath.key": "k"}
    presentation.show_version(registry, logged, version, tags, "f1")
    assert version.description == presentation.describe_version(tags, {"f1": 0.5, "ece": 0.25})
    facts = (7000, 0, "m-1", "run")
    assert sent == [("run", [("f1", 0.5, *facts), ("ece", 0.25, *facts)])]
    assert views == [("7", ["evaluate/f1", "evaluate/ece"])]
    logged.source_run_id = ""
    presentation.show_version(registry, logged, version, tags, "f1")
    assert len(sent) == 1
