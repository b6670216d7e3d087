"""The endpoint: a real Ray Serve with a model from a real registry."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from raypath.components import Endpoint, PlatformError, UserError
from raypath.components.core.context import Tracking
from raypath.components.data.tokenization.tokenizer import TextTokenizer
from raypath.components.inference.engine import Engine
from raypath.components.register import RegisterParams, register
from raypath.components.registry import aliases
from raypath.components.registry.snapshot import RegistrySnapshot
from raypath.components.serve import _alive, serve
from raypath.components.serving.control import proxy, rollout
from raypath.components.serving.params import ServeParams, with_threads
from raypath.components.serving.replica import status
from raypath.deploy.api.services import endpoint_status
from tests.components.recording import Recorder
from tests.components.serving import wrong_requests
from tests.tiny_classifier import LENGTH, texts, tiny_classifier, tiny_dataset, tiny_report
from tests.waiting import free_port

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

LABELS = ("1", "2", "3")
PARAMS = ServeParams(max_items=50, max_characters=500, max_body=100_000, request_timeout=20.0)


@pytest.fixture(scope="module")
def shop(serve_url, mlflow_uri, tmp_path_factory) -> SimpleNamespace:
    """Two registered versions, the first in service."""
    from raypath.components import Context

    place = tmp_path_factory.mktemp("shop")
    tracking = Tracking(uri=mlflow_uri, experiment="serving", spool=str(place / "spool"))

    notes, progress = Recorder(), place / "progress"

    def context(step: str, key: str) -> Context:
        folder = place / f"{step}-{time.monotonic_ns()}"
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True)
        folders, more = (folder / "out", folder / "scratch"), {"track": notes, "progress": progress}
        return Context(step, *folders, workers=1, tracking=tracking, key=key, serve_url=serve_url, **more)

    models, releases = [], []
    for seed in range(2):
        models.append(tiny_classifier(place / f"model-{seed}", labels=LABELS, kind="int", seed=seed))
        data = tiny_dataset(place / f"data-{seed}", models[0], rows=10)
        report = tiny_report(place / f"report-{seed}", models[seed], data, 0.3 + seed / 2)
        ctx = context("register", f"k{seed}")
        releases.append(register.fn(ctx, models[seed], report, RegisterParams(name="letters")))
    endpoint = serve.fn(context("serve", "s"), releases[0], PARAMS)
    made = {"models": models, "releases": releases, "endpoint": endpoint, "notes": notes, "progress": progress}
    return SimpleNamespace(**made, context=context, url=serve_url, uri=mlflow_uri)


@pytest.fixture
def client(shop) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop.url, timeout=30.0, trust_env=False) as client:
        yield client


def expected(folder: str, lines: list[str]) -> np.ndarray:
    tokens = TextTokenizer(Path(folder), LENGTH).encode(lines)
    engine = Engine(Path(folder))
    return engine.task.decode(engine.record(tokens))


def test_the_step_returns_once_the_version_answers(shop, client) -> None:
    assert (shop.endpoint.url, shop.endpoint.name, shop.endpoint.version) == (shop.url, "letters", 1)
    assert 0 < shop.endpoint.metrics["request_ms"] < 5000
    assert {name: points[0] for name, points in shop.notes.points.items()} == shop.endpoint.metrics
    assert shop.endpoint.metrics.keys() == {"ready_seconds", "request_ms"}
    line = json.loads(shop.progress.read_text())
    assert (line["done"], line["total"], line["message"]) == (2, 3, "waiting for the endpoint")
    assert client.get("/healthz").json() == {"name": "letters", "version": 1, "status": "ok"}
    assert _alive(shop.context("serve", "s"), shop.endpoint)
    assert not _alive(shop.context("serve", "s"), shop.endpoint.model_copy(update={"version": 2}))


def test_answers_are_the_models_in_the_order_and_type_of_the_data(shop, client) -> None:
    lines = texts(40)
    wanted = expected(shop.models[0].uri, lines)
    reply = client.post("/predict", json={"text": lines}).json()
    assert (reply["model"], reply["version"]) == ("letters", 1)
    assert [p["label"] for p in reply["predictions"]] == [int(k) + 1 for k in wanted.argmax(axis=1)]
    for row, prediction in zip(wanted, reply["predictions"], strict=True):
        assert prediction["scores"] == pytest.approx(dict(zip(LABELS, row, strict=True)), abs=1e-5)
        assert prediction["score"] == pytest.approx(row.max(), abs=1e-5)
    single = client.post("/predict", json={"text": lines[7]}).json()
    assert single["predictions"][0]["scores"] == pytest.approx(reply["predictions"][7]["scores"], abs=1e-5)


def test_many_clients_at_once_get_their_own_answers(shop) -> None:
    lines = texts(48)
    wanted = expected(shop.models[0].uri, lines)
    found: dict[int, float] = {}

    def ask(n: int) -> None:
        with httpx.Client(base_url=shop.url, timeout=30.0, trust_env=False) as mine:
            found[n] = mine.post("/predict", json={"text": lines[n]}).json()["predictions"][0]["score"]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(48)] == pytest.approx(list(wanted.max(axis=1)), abs=1e-5)


def test_wrong_requests_are_rejected_behind_rays_proxy_too(client) -> None:
    for wrong in (wrong_requests.PREDICT | wrong_requests.JSON).values():
        wrong_requests.check(client, wrong)


def test_a_large_body_of_unknown_length_is_refused(client) -> None:
    reply = client.post("/predict", content=(b"x" * 30_000 for _ in range(5)))
    assert reply.status_code == 413


def test_the_schema_is_documented(client) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/predict", "/healthz"} <= set(schema["paths"])
    assert client.get("/docs").status_code == 200


def test_a_new_champion_is_swapped_in_without_a_failed_request(shop, client) -> None:
    statuses: list[int] = []
    seen: set[int] = set()
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=shop.url, timeout=30.0, trust_env=False) as mine:
            while not done.is_set():
                reply = mine.post("/predict", json={"text": "tea"})
                statuses.append(reply.status_code)
                seen.add(reply.json()["version"])

    pids = replicas()
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        endpoint = serve.fn(shop.context("serve", "t"), shop.releases[1], PARAMS)
    finally:
        done.set()
        thread.join()
    assert (endpoint.version, set(statuses), seen) == (2, {200}, {1, 2})
    assert replicas() == pids
    lines = texts(5)
    scores = [p["score"] for p in client.post("/predict", json={"text": lines}).json()["predictions"]]
    assert scores == pytest.approx(list(expected(shop.models[1].uri, lines).max(axis=1)), abs=1e-5)
    rollout.swap_version("letters", 1)
    assert client.get("/healthz").json()["version"] == 1
    assert replicas() == pids


def replicas() -> set[str]:
    from ray import serve as ray_serve

    deployment = ray_serve.status().applications["letters"].deployments["model"]
    assert deployment.replica_states == {"RUNNING": 1}
    import ray

    actors = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in actors if "letters" in actor["name"]}


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_in_service(shop, client, monkeypatch) -> None:
    gone = SimpleNamespace(name="letters", version="9", source="models:/m-gone", tags={})
    real = RegistrySnapshot.find
    monkeypatch.setattr(RegistrySnapshot, "find", lambda self, *args: real(self, *args) or gone)
    with pytest.raises(PlatformError, match="version 9 cannot be loaded: model letters has no version 9"):
        rollout.swap_version("letters", 9, seconds=20.0)
    assert client.post("/predict", json={"text": "tea"}).json()["version"] == 1


def test_swap_names_a_model_that_is_not_in_service(shop) -> None:
    with pytest.raises(UserError, match="no model nothing is in service"):
        rollout.swap_version("nothing", 1)


def test_cores_are_shared_by_the_most_replicas_that_run_side_by_side() -> None:
    def threads(**settings: int) -> int:
        return with_threads(ServeParams(**settings), 8).threads

    assert [threads(), threads(replicas=2), threads(replicas=0, max_replicas=4)] == [8, 4, 2]
    assert threads(replicas=2, max_replicas=16) == 1
    assert threads(threads=3) == 3


def test_nothing_listening_is_dead(make_context) -> None:
    endpoint = Endpoint(url=f"http://127.0.0.1:{free_port()}", name="letters", version=1)
    assert not _alive(make_context("serve"), endpoint)


def test_a_port_of_another_program_is_named(monkeypatch) -> None:
    monkeypatch.setattr(proxy, "is_running", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PlatformError, match=f"port {port} on 127.0.0.1 is in use"):
            proxy.start(f"http://127.0.0.1:{port}", 5.0)


def test_a_second_model_gets_a_route_of_its_own(shop) -> None:
    assert proxy.choose_route(shop.url, "letters", None) == "/"
    assert proxy.choose_route(shop.url, "second", None) == "/second"
    assert proxy.choose_route(shop.url, "second", "/else") == "/else"
    with pytest.raises(UserError, match="second cannot be served at /, where letters is; set another"):
        proxy.choose_route(shop.url, "second", "/")


def test_replicas_follow_the_load_down_to_none(shop, client) -> None:
    scaling = {"replicas": 0, "max_replicas": 2, "target_requests": 1.0, "idle_seconds": 2.0}
    params = PARAMS.override(scaling | {"route": "/scaled", "threads": 1})
    release = shop.releases[0]
    endpoint = serve.fn(shop.context("serve", "scaled"), release.model_copy(update={"name": "letters"}), params)
    assert endpoint.url.endswith("/scaled")

    def counted(wanted: int, seconds: float) -> int:
        from ray import serve as ray_serve

        end = time.monotonic() + seconds
        while True:
            states = ray_serve.status().applications["letters"].deployments["model"].replica_states
            running = sum(number for state, number in states.items() if state == "RUNNING")
            if running == wanted or time.monotonic() > end:
                return running
            time.sleep(0.2)

    stop = threading.Event()

    def press() -> None:
        with httpx.Client(timeout=150.0, trust_env=False) as own:
            while not stop.is_set():
                own.post(f"{endpoint.url}/predict", json={"text": texts(40)})

    threads = [threading.Thread(target=press) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        assert counted(2, 180) == 2
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert counted(0, 60) == 0
    # Who only looks wakes nobody.
    assert (status.running_replicas("letters"), status.replica_statuses("letters"), status.is_deployed("letters")) == (
        0,
        [],
        True,
    )
    assert endpoint_status(endpoint.url, "letters", 0, []).status == "scaled to zero"
    assert proxy.has_route(endpoint.url, "letters")
    assert not proxy.has_route(shop.url, "letters")
    # Nor does a promotion: the next replica has the version.
    other = shop.releases[1].version
    before = aliases.promote(shop.uri, "letters", other)
    assert not rollout.swap_version("letters", other, before=before)
    end = time.monotonic() + 20
    while not status.is_scaled_to_zero("letters") and time.monotonic() < end:  # Serve is DEPLOYING for a moment
        time.sleep(0.1)
    assert status.is_scaled_to_zero("letters")
    asked = endpoint.model_copy(update={"version": other})
    # Nor does a run that asks whether it is still there.
    assert _alive(shop.context("serve", "scaled"), asked), "idle is not dead"
    assert not _alive(shop.context("serve", "scaled"), endpoint), "another version is the champion"
    assert counted(1, 3) == 0
    assert status.is_scaled_to_zero("letters")
    woken = httpx.post(f"{endpoint.url}/predict", json={"text": "red"}, timeout=150.0, trust_env=False)
    assert (woken.status_code, woken.json()["version"]) == (200, other)
    assert counted(1, 5) >= 1
