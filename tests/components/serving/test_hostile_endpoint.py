"""A real endpoint that is given versions which would end or lead it astray: it goes on, and the way back works."""

from __future__ import annotations

import http.server
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from raypath.components import Context, Endpoint, PlatformError
from raypath.components.core.context import Tracking
from raypath.components.inference import golden_examples as examples
from raypath.components.register import RegisterParams, register
from raypath.components.registry import aliases
from raypath.components.registry.signing import keys
from raypath.components.serve import _alive, serve
from raypath.components.serving.control import rollout
from raypath.components.serving.params import ServeParams
from raypath.components.serving.replica.status import is_scaled_to_zero
from tests.components.broken import wrong
from tests.local_http import answering
from tests.security.test_model_tasks import names_task
from tests.tiny_classifier import tiny_classifier, tiny_dataset, tiny_report
from tests.waiting import until

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

ENDS = """
from pathlib import Path
from raypath.components.tasks.text_classification import TextClassification
if Path(__file__).with_name("armed").exists():
    raise SystemExit(3)
class Ends(TextClassification):
    pass
"""
STUCK = """
from pathlib import Path
from raypath.components.serving.replica import base
from raypath.components.tasks.text_classification import TextClassification
class Stuck(TextClassification):
    def forward(self, model, batch):
        if (gate := Path(__file__).with_name("gate")).exists():
            base.STALLED_SECONDS = 0.5
            gate.read_bytes()  # a FIFO that nobody writes to
        return super().forward(model, batch)
"""


@pytest.fixture(scope="module")
def shop(serve_url: str, mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A registry, a home with keys of its own, and a module of the operator's own on the path of the replicas."""
    place = tmp_path_factory.mktemp("hostile")
    (place / "ends_in_replica.py").write_text(ENDS)
    (place / "stuck_in_replica.py").write_text(STUCK)
    keys.ensure_key(place / "signing")
    tracking = Tracking(uri=mlflow_uri, experiment="hostile", spool=str(place / "spool"))

    def context(step: str) -> Context:
        folder = place / f"{step}-{time.monotonic_ns()}"
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True)
        out, scratch, signing = folder / "out", folder / "scratch", place / "signing"
        return Context(
            step, out, scratch, workers=1, tracking=tracking, key=folder.name, serve_url=serve_url, signing=signing
        )

    def release(name: str, seed: int, task: str = "", record: Any = examples.record) -> Any:
        model = tiny_classifier(place / f"{name}-{seed}", seed=seed)
        data = tiny_dataset(place / f"{name}-data-{seed}", model, rows=10)
        if task:
            names_task(Path(model.uri), task)
            model = model.model_copy(update={"task": task})
        report = tiny_report(place / f"{name}-report-{seed}", model, data, seed / 2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(examples, "record", record)
            return register.fn(context("register"), model, report, RegisterParams(name=name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(place))
        patch.syspath_prepend(str(place))
        patch.delenv(keys.PRIVATE)
        yield SimpleNamespace(place=place, url=serve_url, uri=mlflow_uri, context=context, release=release)


def pids(application: str) -> set[str]:
    import ray

    return {each["name"] for each in ray.util.list_named_actors(all_namespaces=True) if application in each["name"]}


def test_a_version_whose_code_ends_its_process_leaves_the_replica_in_service(shop: SimpleNamespace) -> None:
    first = shop.release("hostile", 1)
    endpoint = serve.fn(shop.context("serve"), first, ServeParams(tasks=("ends_in_replica:Ends",)))
    before = pids("hostile")
    second = shop.release("hostile", 2, "ends_in_replica:Ends")
    assert second.reason == "not comparable with version 1: it has another task or other labels"
    aliases.promote(shop.uri, "hostile", second.version, shop.place / "signing")
    (shop.place / "armed").touch()
    with pytest.raises(PlatformError, match=r"version 2 cannot be loaded: .*SystemExit\(3\).*; version 1 is champion"):
        rollout.swap_version("hostile", second.version)
    reply = httpx.post(f"{endpoint.url}/predict", json={"text": "tea"}, timeout=30, trust_env=False)
    assert (reply.status_code, reply.json()["version"], pids("hostile")) == (200, 1, before)
    assert _alive(shop.context("serve"), endpoint)


@pytest.mark.slow
def test_a_replica_whose_batcher_is_stuck_is_replaced(shop: SimpleNamespace) -> None:
    release = shop.release("stuck", 1, "stuck_in_replica:Stuck")
    settings = ServeParams(route="/stuck", tasks=("stuck_in_replica:Stuck",), request_timeout=2.0)
    endpoint = serve.fn(shop.context("serve"), release, settings)
    [before] = pids("SERVE_REPLICA::stuck")
    gate = shop.place / "gate"
    os.mkfifo(gate)
    assert _predict(endpoint) == 504
    until(lambda: before not in pids("SERVE_REPLICA::stuck"))
    gate.unlink()
    until(lambda: _predict(endpoint) == 200)


def _predict(endpoint: Endpoint) -> int:
    """The status of a request."""
    return httpx.post(f"{endpoint.url}/predict", json={"text": "tea"}, timeout=30, trust_env=False).status_code


@pytest.mark.slow
def test_an_endpoint_that_never_came_up_is_not_in_service_and_comes_back(shop: SimpleNamespace) -> None:
    bad = shop.release("lost", 1, record=wrong)
    with pytest.raises(PlatformError, match="its output for example"):
        serve.fn(shop.context("serve"), bad, ServeParams(route="/lost"))
    endpoint = Endpoint(url=f"{shop.url}/lost", name="lost", version=1)
    assert not _alive(shop.context("serve"), endpoint)
    assert not is_scaled_to_zero("lost")
    good = shop.release("lost", 2)
    before = aliases.promote(shop.uri, "lost", good.version, shop.place / "signing")
    assert rollout.swap_version("lost", good.version, before=before)
    reply = httpx.post(f"{endpoint.url}/predict", json={"text": "tea"}, timeout=30, trust_env=False)
    assert (reply.status_code, reply.json()["version"]) == (200, 2)


class Unavailable(http.server.BaseHTTPRequestHandler):
    """A proxy that has the route of an endpoint without a replica."""

    def do_GET(self) -> None:
        body = json.dumps({"/": "answers-503"}).encode() if self.path == "/-/routes" else b"{}"
        self.send_response(200 if self.path == "/-/routes" else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def test_an_endpoint_that_answers_503_is_not_taken_for_one_that_is_scaled_to_zero(shop: SimpleNamespace) -> None:
    release = shop.release("answers-503", 1)
    with answering(Unavailable) as url:
        endpoint = Endpoint(url=url, name="answers-503", version=release.version)
        idle = endpoint.model_copy(update={"scales_to_zero": True})
        assert not _alive(shop.context("serve"), endpoint)
        assert _alive(shop.context("serve"), idle)
        aliases.set_tag(shop.uri, "answers-503", release.version, "raypath.rejected", "it ended its process")
        assert not _alive(shop.context("serve"), idle), "its last replica could not load it"
