"""A RayService's application on a real Ray Serve: deployed from a config, it follows the registry's alias by itself."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml

from raypath.components import ParamsError, PlatformError, Unavailable
from raypath.components.core.context import Tracking
from raypath.components.inference import golden_examples as examples
from raypath.components.register import RegisterParams, register
from raypath.components.registry import aliases, tags
from raypath.components.serve import serve
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.params import ServeParams
from raypath.deploy.kubernetes.serve_app import build
from tests.components.broken import wrong
from tests.local_http import answering
from tests.tiny_classifier import texts, tiny_classifier, tiny_dataset, tiny_report
from tests.waiting import free_port

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

BASE = Path(__file__).parents[3] / "k8s" / "base"


@pytest.fixture(scope="module")
def own_serve(ray_head: Any, mlflow_uri: str, tmp_path_factory: Any) -> Iterator[SimpleNamespace]:
    """What k8s/base/rayservice.yaml says, deployed before there is any model; then two versions are registered."""
    from ray import serve as ray_serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    from raypath.components import Context

    place, port = tmp_path_factory.mktemp("followed"), free_port()
    keys = KeyStore(place / "access")
    _, key = keys.create("test")
    manifest = yaml.safe_load((BASE / "rayservice.yaml").read_text())
    config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    config["proxy_location"], config["http_options"] = "HeadOnly", {**config["http_options"], "host": "127.0.0.1"}
    config["http_options"]["port"] = port
    application = config["applications"][0]
    application["args"] |= {"name": "followed", "tracking": mlflow_uri, "poll_seconds": 0.3}
    application["args"] |= {"access": str(place / "access"), "usage": str(place / "usage")}
    application["args"]["serve"] |= {"cpus": 0.0, "max_replicas": 2}
    ray_serve.shutdown()  # the Serve of other tests: this one has the options of the manifest
    ray_serve.start(proxy_location="HeadOnly", http_options=config["http_options"])
    _get_global_client().deploy_apps(ServeDeploySchema(**config), _blocking=False)
    tracking = Tracking(uri=mlflow_uri, experiment="following", spool=str(place / "spool"))

    def context(step: str) -> Context:
        folder = place / f"{step}-{time.monotonic_ns()}"
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True)
        return Context(step, folder / "out", folder / "scratch", workers=1, tracking=tracking, key=folder.name)

    def release(seed: int, right: float) -> Any:
        model = tiny_classifier(place / f"model-{seed}", labels=("a", "b"), seed=seed)
        data = tiny_dataset(place / f"data-{seed}", model, rows=10)
        report = tiny_report(place / f"report-{seed}", model, data, right)
        return register.fn(context("register"), model, report, RegisterParams(name="followed"))

    url = f"http://127.0.0.1:{port}"
    yield SimpleNamespace(url=url, uri=mlflow_uri, key=key, context=context, release=release, place=place)
    ray_serve.shutdown()


def _version(url: str, wanted: int, seconds: float = 60.0) -> dict[str, Any]:
    end = time.monotonic() + seconds
    found: dict[str, Any] = {}
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < end:
            try:
                found = client.get(f"{url}/healthz").json()
            except (httpx.HTTPError, ValueError):
                found = {}
            if found.get("version") == wanted:
                return found
            time.sleep(0.1)
    raise AssertionError(f"version {wanted} never answered, last: {found}")


@pytest.mark.slow
def test_it_waits_for_a_champion_and_follows_the_alias_there_and_back(
    own_serve: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import serve as ray_serve

    shop, end = own_serve, time.monotonic() + 60
    while not (states := [each.status for each in ray_serve.status().applications.values()]):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert states == ["DEPLOYING"]
    assert httpx.get(f"{shop.url}/healthz", trust_env=False).status_code == 404
    first = shop.release(1, 0.3)
    _version(shop.url, 1)
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=30) as client:
        assert client.post("/predict", json={"text": texts(1)}).status_code == 401
        client.headers["Authorization"] = f"Bearer {shop.key}"
        assert client.post("/predict", json={"text": texts(1)}).json()["version"] == 1
        # A better version takes the alias: nothing is applied or redeployed, and no request fails on the way.
        second = shop.release(2, 0.6)
        began = time.monotonic()
        while (reply := client.post("/predict", json={"text": texts(1)})).json()["version"] != 2:
            assert time.monotonic() - began < 60
        assert reply.status_code == 200
    # The step `serve` of a job finds it there, and starts no Serve of its own.
    monkeypatch.setenv("RAYPATH_ENDPOINT", shop.url)
    endpoint = serve.fn(shop.context("serve"), second, ServeParams(start_timeout=60.0))
    assert (endpoint.url, endpoint.version, first.version, second.version) == (shop.url, 2, 1, 2)
    assert aliases.rollback(shop.uri, "followed") == (1, 2)
    assert _version(shop.url, 1)["status"] == "ok"
    # A version that is refused loses the alias, and the step tells why.
    monkeypatch.setattr(examples, "record", wrong)
    third = shop.release(3, 1.0)
    assert third.serving == 3
    with pytest.raises(PlatformError, match="version 3 was rejected: its output for example"):
        serve.fn(shop.context("serve"), third, ServeParams(start_timeout=60.0))
    end = time.monotonic() + 30
    while aliases.alias_target(shop.uri, "followed", tags.CHAMPION)[0] != 1:  # type: ignore[index]
        assert time.monotonic() < end
        time.sleep(0.2)
    assert _version(shop.url, 1)["status"] in ("ok", "degraded: version 3 was rejected")


def test_arguments_that_do_not_fit_are_told_before_anything_starts(mlflow_uri: str) -> None:
    with pytest.raises(ParamsError, match=r"unknown setting serve\.replica"):
        build({"name": "m", "serve": {"replica": 1}})
    with pytest.raises(ParamsError, match="no folder with API keys"):
        build({"name": "m", "tracking": mlflow_uri})
    with pytest.raises(ParamsError, match="replicas=0"):
        build({"name": "m", "tracking": mlflow_uri, "access": "/a", "serve": {"replicas": 0}})
    with pytest.raises(Unavailable, match="no model nobody"):
        build({"name": "nobody", "tracking": mlflow_uri, "access": "/a", "poll_seconds": 0.1, "champion_timeout": 0.1})


def test_a_follower_that_refuses_a_version_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler

    from raypath.components.serving.control.rollout import wait_for_version

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"name": "m", "version": 1, "status": "degraded: version 2 was rejected"}')

        def log_message(self, *_: Any) -> None: ...

    monkeypatch.setattr(aliases, "rejection_reason", lambda *asked: "damaged" if asked == ("registry", "m", 2) else "")
    with answering(Refusing) as url, pytest.raises(PlatformError, match="damaged"):
        wait_for_version(url, "registry", "m", 2, 5.0)


def test_a_follower_is_waited_for_until_it_serves_the_version_or_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from http.server import BaseHTTPRequestHandler

    from raypath.components.serving.control.rollout import wait_for_version

    versions = [1, 1, 2]

    class Following(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            version = versions.pop(0) if len(versions) > 1 else versions[0]
            self.wfile.write(b'{"name": "m", "version": %d, "status": "ok"}' % version)

        def log_message(self, *_: Any) -> None: ...

    monkeypatch.setattr(aliases, "rejection_reason", lambda *_: "")
    with answering(Following) as url:
        assert 0.02 <= wait_for_version(url, "registry", "m", 2, 30.0, pause=0.01) < 30.0
        assert versions == [2], "asked until it was there"
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"m version 3 is not served at .* within 0.1 s"):
            wait_for_version(url, "registry", "m", 3, 0.1, pause=0.01)
        assert time.monotonic() - began >= 0.1
