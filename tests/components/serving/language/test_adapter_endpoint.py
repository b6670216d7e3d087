"""Adapters by name behind a real Ray Serve: two models on one base, a promotion while both answer, and a shadow."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from raypath.components import Context, Dataset, Model, Report
from raypath.components.core.context import Tracking
from raypath.components.register import RegisterParams, register
from raypath.components.registry import aliases
from raypath.components.serve import serve
from raypath.components.serving.control import rollout
from raypath.components.serving.params import ServeParams
from raypath.components.serving.replica import status
from tests.components.serving.language.chat_server import adapter_models
from tests.waiting import until

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]
ASK = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 20}
PARAMS = ServeParams(
    threads=1, request_timeout=60.0, max_queue_seconds=60.0, extra_models=("legal",), shadow="challenger", open=True
)


@pytest.mark.slow
def test_adapters_are_promoted_by_name_and_a_shadow_is_compared(
    serve_url: str, mlflow_uri: str, tmp_path: Path
) -> None:
    from ray import serve as ray_serve

    tracking = Tracking(uri=mlflow_uri, experiment="adapters", spool=str(tmp_path / "spool"))
    folders = adapter_models(tmp_path, ["polite", "legal", "legal-2", "polite-2"])

    def context(step: str) -> Context:
        folder = tmp_path / f"{step}-{time.monotonic_ns()}"
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True)
        more: Any = {"workers": 1, "tracking": tracking, "key": folder.name, "serve_url": serve_url}
        return Context(step, folder / "out", folder / "scratch", **more)

    def release(folder: str, loss: float) -> Any:
        model = Model(uri=str(folders[folder]), digest=folder, task="text_generation", base="tiny", max_length=64)
        report = Report(model=model, data=Dataset(uri="x", digest="test", rows=1), metrics={"loss": loss})
        name = folder.partition("-")[0]
        return register.fn(context("register"), model, report, RegisterParams(name=name, better_on="loss"))

    release("legal", 2.0)
    main = release("polite", 2.0)
    assert release("polite-2", 3.0).alias == "challenger"
    endpoint = serve.fn(context("serve"), main, PARAMS)
    errors: list[Any] = []
    done = threading.Event()

    def ask(client: httpx.Client, name: str) -> Any:
        found = client.post("/v1/chat/completions", json=ASK | {"model": name})
        return found.json() if found.status_code == 200 else errors.append((name, found.text))

    def go_on(name: str) -> None:
        with httpx.Client(base_url=endpoint.url, timeout=60.0, trust_env=False) as client:
            while not done.is_set():
                ask(client, name)

    with httpx.Client(base_url=endpoint.url, timeout=60.0, trust_env=False) as client:
        first = {name: ask(client, name) for name in ("polite", "legal")}
        assert {name: each["version"] for name, each in first.items()} == {"polite": 1, "legal": 1}
        texts = {each["choices"][0]["message"]["content"] for each in first.values()}
        parents = {each["id"]: each["parent"] for each in client.get("/v1/models").json()["data"]}
        assert parents == dict.fromkeys(("polite", "legal"), str(tmp_path / "base"))
        threads = [threading.Thread(target=go_on, args=(name,)) for name in ("polite", "legal")]
        for thread in threads:
            thread.start()
        try:
            assert release("legal-2", 1.0).version == 2
            aliases.promote(mlflow_uri, "legal", 2)
            assert rollout.swap_version("legal", 2)
            second = ask(client, "legal")
        finally:
            done.set()
            for thread in threads:
                thread.join(60)
        assert second["version"] == 2
        assert len(texts | {second["choices"][0]["message"]["content"]}) == 3, "three adapters, three answers"
        aliases.rollback(mlflow_uri, "legal")
        assert rollout.swap_version("legal", 1)
        assert ask(client, "legal")["choices"] == first["legal"]["choices"]

        def shown() -> str:
            ask(client, "polite")
            return next((each.shadow for each in status.replica_statuses("polite") if "agree" in each.shadow), "")

        assert until(shown).startswith("version 2: ")
    assert not errors
    ray_serve.delete("polite")
