"""A language model behind a real Ray Serve: keys, streams across promotions, rejected versions, disconnects."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from raypath.components import Context, Dataset, Model, PlatformError, Report
from raypath.components.core.context import Tracking
from raypath.components.inference.generation import golden_answers
from raypath.components.register import RegisterParams, register
from raypath.components.registry import aliases
from raypath.components.serve import serve
from raypath.components.serving.control import rollout
from raypath.components.serving.metering.api_keys import KeyStore, local_key
from raypath.components.serving.params import ServeParams
from tests.components.serving.language.chat_server import chat_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]
PARAMS = ServeParams(threads=1, request_timeout=60.0, max_queue_seconds=60.0, max_new_tokens=64)
BODY = {"model": "talk", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 20}


def _wrong(folder: Path) -> None:
    """Golden answers as another model would give them."""
    record(folder)
    path = folder / "examples.json"
    found = json.loads(path.read_text())
    for each in found["generation"]:
        each["logprobs"] = [value - 5.0 for value in each["logprobs"]]
    path.write_text(json.dumps(found))


record = golden_answers.record


@pytest.fixture(scope="module")
def shop(serve_url: str, mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Version 1 of `talk` in service with keys; version 2 is broken, version 3 good."""
    place = tmp_path_factory.mktemp("chat")
    tracking = Tracking(uri=mlflow_uri, experiment="chat", spool=str(place / "spool"))

    def context(step: str) -> Context:
        folder = place / f"{step}-{time.monotonic_ns()}"
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True)
        return Context(
            step, folder / "out", folder / "scratch", workers=1, tracking=tracking, key=folder.name,
            serve_url=serve_url, api_keys=place / "keys",
        )  # fmt: skip

    def release(version: int, broken: bool = False) -> Any:
        folder = chat_model(place / f"model-{version}", version, max_position_embeddings=1024)
        model = Model(uri=str(folder), digest=f"d{version}", task="text_generation", base="tiny", max_length=64)
        data = Dataset(uri=str(place), digest="test", rows=1)
        report = Report(model=model, data=data, metrics={"loss": 9.0 - version})
        with pytest.MonkeyPatch.context() as patch:
            if version == 2 or broken:
                patch.setattr(golden_answers, "record", _wrong)
            return register.fn(context("register"), model, report, RegisterParams(name="talk", better_on="loss"))

    endpoint = serve.fn(context("serve"), release(1), PARAMS)
    key = local_key(place / "keys").read_text()
    return SimpleNamespace(endpoint=endpoint, url=endpoint.url, uri=mlflow_uri, release=release, place=place, key=key)


@pytest.fixture
def client(shop: SimpleNamespace) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {shop.key}"}
    with httpx.Client(base_url=shop.url, headers=headers, timeout=60.0, trust_env=False) as client:
        yield client


def stream(client: httpx.Client, **more: Any) -> list[Any]:
    """The events of a stream, the last of which is not an event but its end."""
    with client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True, **more}) as reply:
        assert reply.status_code == 200, reply.read()
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def text_of(events: list[Any]) -> str:
    return "".join(each["choices"][0]["delta"].get("content", "") for each in events if each["choices"])


def test_the_step_returns_once_the_model_answers(shop: SimpleNamespace, client: httpx.Client) -> None:
    assert (shop.endpoint.name, shop.endpoint.version, shop.endpoint.path) == ("talk", 1, "/v1/chat/completions")
    assert json.loads(shop.endpoint.example)["model"] == "talk"
    assert shop.endpoint.metrics["request_ms"] > 0
    found = client.post("/v1/chat/completions", json=BODY).json()
    assert found["version"] == 1
    assert found["usage"]["completion_tokens"] == 20
    assert text_of(stream(client)) == found["choices"][0]["message"]["content"]
    assert client.get("/").status_code == 200


def test_a_key_needs_the_scope_chat(shop: SimpleNamespace) -> None:
    assert httpx.post(f"{shop.url}/v1/chat/completions", json=BODY).status_code == 401
    predict, chat = (KeyStore(shop.place / "keys").create(name, [name])[1] for name in ("predict", "chat"))
    time.sleep(1.1)  # keys are read once a second
    said = httpx.post(f"{shop.url}/v1/chat/completions", json=BODY, headers={"x-api-key": predict})
    assert (said.status_code, said.json()["error"]["message"]) == (403, "this key is not for chat")
    assert httpx.get(f"{shop.url}/v1/models", headers={"x-api-key": chat}).json()["data"][0]["id"] == "talk"


def test_a_client_that_leaves_frees_its_slot(shop: SimpleNamespace, client: httpx.Client) -> None:
    with client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True, "max_tokens": 900}) as reply:
        lines = reply.iter_lines()  # without a reference it would end, and with it the connection
        next(lines)
    end = time.monotonic() + 20
    while (state := _running()) > 0:
        assert time.monotonic() < end, state
        time.sleep(0.05)


def _running() -> int:
    from ray import serve

    return int(serve.get_app_handle("talk").users.remote().result(timeout_s=10))


@contextlib.contextmanager
def streaming(client: httpx.Client, clients: int = 3, tokens: int = 60) -> Iterator[list[set[int]]]:
    """Clients that stream all the time, and the versions of each stream; none may fail, or mix two versions."""
    seen: list[set[int]] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                seen.append({each["version"] for each in stream(client, max_tokens=tokens)})
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert not errors
    assert {len(each) for each in seen} == {1}


def test_streams_end_on_their_version_while_others_are_promoted(shop: SimpleNamespace, client: httpx.Client) -> None:
    """Streams all the time, over a version that is rejected, a promotion and a rollback."""
    with streaming(client) as seen:
        second, third = shop.release(2), shop.release(3)
        assert (second.version, third.version) == (2, 3)
        aliases.promote(shop.uri, "talk", 2)
        with pytest.raises(PlatformError, match=r"version 2 cannot be loaded: its answer to example 1 is off by 5"):
            rollout.swap_version("talk", 2, 60.0, before=1)
        aliases.promote(shop.uri, "talk", 3)
        assert rollout.swap_version("talk", 3)
        assert client.post("/v1/chat/completions", json=BODY).json()["version"] == 3
        aliases.rollback(shop.uri, "talk")
        assert rollout.swap_version("talk", 1)
    assert set.union(*seen) == {1, 3}
    assert client.post("/v1/chat/completions", json=BODY).json()["version"] == 1


@pytest.mark.heavy
@pytest.mark.timeout(1_800)
def test_a_thousand_streams_over_five_promotions_and_three_broken_versions(
    shop: SimpleNamespace, client: httpx.Client
) -> None:
    """Run alone: `pytest -m heavy tests/components/serving/language/test_chat_endpoint.py`."""
    steps = (False, True, False, True, False, True, False, False)
    served = {serving := 1}
    with streaming(client, clients=16, tokens=30) as seen:
        for number, broken in enumerate(steps, 1):
            version = shop.release(10 + number, broken).version
            aliases.promote(shop.uri, "talk", version)
            if broken:
                with pytest.raises(PlatformError, match=f"version {version} cannot be loaded"):
                    rollout.swap_version("talk", version, 120.0, before=serving)
            else:
                assert rollout.swap_version("talk", version)
                served.add(serving := version)
            end = time.monotonic() + 600
            while len(seen) < 1_000 * number / len(steps):
                assert time.monotonic() < end
                time.sleep(0.1)
    assert len(seen) >= 1_000
    assert set.union(*seen) == served
