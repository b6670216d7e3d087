"""Canary and shadow of language models on one replica: responses are run again when nobody waits, and counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from raypath.components.inference.generation.async_engine import EngineFault
from raypath.components.inference.generation.engine import SamplingSettings
from raypath.components.serving.live.live_test import Trial
from raypath.components.serving.model_versions import LoadedLanguageModel, ModelVersion, Role
from raypath.components.serving.params import ServeParams
from raypath.components.serving.replica.language.loading import open_language_model
from tests.components.serving.language.chat_server import LIMITS, chat_model, language_service, served_chat
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
SECRET = "Where is the red house?"
ASK = {"model": "m", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 10, "temperature": 1.0, "seed": 3}
SETTINGS = LIMITS.model_copy(update={"shadow": "challenger", "decide_requests": 2})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("shadow")
    return {name: chat_model(home / name, seed) for seed, name in enumerate(("main", "other"))}


@pytest.fixture
def replica(folders: dict[str, Path]) -> Iterator[Callable[..., SimpleNamespace]]:
    """A replica whose version 2 has a role; it is the same model as the main one, or another."""
    opened: list[Any] = []

    def build(folder: str, role: Role = Role.SHADOW, settings: ServeParams = SETTINGS) -> SimpleNamespace:
        service = language_service({"m": folders["main"]}, settings)
        second = open_language_model(folders[folder], "m", 2, threads=1)
        service.models.active[role] = second
        wanted = ModelVersion(name="m", version=2)
        more = {role.value: wanted} | ({"canary_percent": 50.0} if role == Role.CANARY else {})
        service.models.plan = service.models.plan.model_copy(update=more)
        service._swapped(service.models.plan)
        context = served_chat(service)
        opened.append(context)
        client = httpx.Client(base_url=context.__enter__(), timeout=20.0, trust_env=False)
        opened.append(client)
        return SimpleNamespace(service=service, http=client, second=second)

    yield build
    for each in reversed(opened):
        each.__exit__(None, None, None)


def ask(http: httpx.Client, **more: Any) -> Any:
    found = http.post("/v1/chat/completions", json=ASK | more)
    assert found.status_code == 200, found.text
    return found.json()


def compared(found: SimpleNamespace, requests: int) -> Any:
    """Send requests, each after the comparison of the one before; returns the comparison."""
    for _ in range(requests):
        ask(found.http)
        until(lambda: found.service.shadow._under_way is None)
    return found.service.shadow.compared


def _settings_of(model: LoadedLanguageModel) -> list[SamplingSettings]:
    """Record the settings of the responses that a model is asked for from here on."""
    asked: list[SamplingSettings] = []
    stream = model.engine.stream

    def recorded(prompt: Sequence[int], settings: SamplingSettings, *more: Any) -> Any:
        asked.append(settings)
        return stream(prompt, settings, *more)

    model.engine.stream = recorded  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize(("folder", "agreed"), [("main", 1.0), ("other", 0.0)])
def test_a_shadow_runs_requests_again_and_counts_only(
    replica: Callable[..., SimpleNamespace], folder: str, agreed: float
) -> None:
    found = replica(folder)
    before = found.service.load.open
    settings = _settings_of(found.second)
    shown = compared(found, 2)
    assert {(each.temperature, each.top_logprobs) for each in settings} == {(0.0, 0)}, "not what the client chose"
    assert [each.max_new_tokens for each in settings if each.max_new_tokens > 1] == [10, 10]
    assert (shown.version, shown.failed, shown.skipped, shown.responses.requests) == (2, 0, 0, 2)
    assert 2 <= shown.predictions <= 8
    assert shown.agreed / shown.predictions == (agreed if agreed else pytest.approx(0.1, abs=0.15))
    line = asyncio.run(found.service.status())["shadow"]
    assert line.startswith("version 2: "), line
    assert "next tokens agree in 2 responses, " in line
    assert "times as long, " in line
    assert found.service.load.open == before, "the replay is not the load of clients"
    assert SECRET not in json.dumps([shown.responses.model_dump(), line])
    assert found.service.metrics.counts["raypath_shadow_compared", ("2",)] == shown.predictions


def test_a_busy_replica_skips(replica: Callable[..., SimpleNamespace]) -> None:
    found = replica("main")
    service = found.service
    waiting = SimpleNamespace(is_waiting=True, waiting_tokens=1)
    service._known[0].users.append(waiting)
    ask(found.http)
    assert (service.shadow.compared.skipped, service.shadow._under_way) == (1, None)
    service._known[0].users.remove(waiting)


def test_versions_with_other_tokens_are_not_compared(
    replica: Callable[..., SimpleNamespace], folders: dict[str, Path], tmp_path: Path
) -> None:
    found = replica("main")
    for path in folders["main"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace('"version"', '"version" '))
    other = open_language_model(tmp_path, "m", 3, threads=1)
    found.service.shadow.set_versions(found.service.models.main, other)
    ask(found.http)
    assert (found.service.shadow.compared.skipped, found.service.shadow.compared.predictions) == (1, 0)


def test_a_shadow_that_fails_is_counted_and_the_clients_see_nothing(replica: Callable[..., SimpleNamespace]) -> None:
    found = replica("other", settings=SETTINGS.model_copy(update={"decide": True}))
    found.service.live.trial = Trial("m", 2, 1, Role.SHADOW, "run")
    found.second.engine.fault = EngineFault("it broke")
    shown = compared(found, 2)
    assert (shown.failed, shown.predictions) == (2, 0)
    counts = found.service.live.counts
    assert (counts.challenger.failed, counts.challenger.requests, counts.champion.failed) == (2, 2, 0)


def test_a_version_on_trial_is_judged_by_what_both_responded(replica: Callable[..., SimpleNamespace]) -> None:
    found = replica("main", settings=SETTINGS.model_copy(update={"decide": True}))
    live = found.service.live
    assert live.rules.agreement == 0, "two good responses may differ"
    live.trial = Trial("m", 2, 1, Role.SHADOW, "run")
    compared(found, 3)
    counts = live.counts
    assert (counts.requests, counts.agreed, counts.tokens.count, counts.tokens.total) == (3, 3.0, 3, 0.0)
    assert counts.latency.count == 3
    assert live.status()[1].startswith("3 of 2 requests, agreement 100%")


def test_a_canary_under_test_serves_its_share_and_its_errors_count(replica: Callable[..., SimpleNamespace]) -> None:
    settings = SETTINGS.model_copy(update={"decide": True, "shadow": None, "canary": "challenger:50"})
    found = replica("other", Role.CANARY, settings)
    live = found.service.live
    live.trial = Trial("m", 2, 1, Role.CANARY, "run")
    texts = {ask(found.http, temperature=0.0)["choices"][0]["message"]["content"] for _ in range(24)}
    assert len(texts) == 2, "both versions respond"
    assert live.counts.challenger.requests + live.counts.champion.requests == 24
    found.second.engine.fault = EngineFault("it broke")
    codes = [found.http.post("/v1/chat/completions", json=ASK).status_code for _ in range(24)]
    assert set(codes) == {200, 503}
    assert live.counts.challenger.failed == codes.count(503)
    assert live.counts.champion.failed == 0


def test_a_version_is_not_closed_while_it_is_compared(replica: Callable[..., SimpleNamespace]) -> None:
    found = replica("main")
    shadow = found.service.shadow
    assert not shadow.uses(found.second)
    shadow._users = (found.service.models.main, found.second)
    assert shadow.uses(found.second)
