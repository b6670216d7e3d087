"""The servers themselves, each in a process of its own: `python -m tests.bench.servers NAME SETUP.json PORT`.

All listen on 127.0.0.1 and end at SIGTERM. Threads of torch, OMP and MKL are the same in all of them; access logs
are off wherever that can be said. What asks them is in serve_peers.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from raypath.components.core.artifacts import Dataset

BATCH, WAIT, LENGTH = 32, 0.01, 128
"""Texts in a batch, seconds to wait for them, tokens in a text: of every contender that has such a setting."""

ACCESS = "access"
"""Folder of the keys, below that of the setup."""


class Setup(BaseModel):
    """What every contender is given."""

    folder: str
    """For what it writes."""
    model: str
    """A folder that transformers opens and that Raypath made."""
    texts: list[str]
    labels: list[str]
    """What the model says of each text, by our engine."""
    test: Dataset
    threads: int
    device: Literal["cpu", "cuda"] = "cpu"
    serve: dict[str, Any] = {}
    """Settings of our own step `serve` that are not its defaults."""


def pipeline_of(setup: Setup) -> Any:
    """A transformers pipeline: in fp32 as it comes, on a GPU in bfloat16, as anybody would have it there."""
    import torch
    from transformers import pipeline

    on_gpu: dict[str, Any] = {"device": 0, "dtype": torch.bfloat16} if setup.device == "cuda" else {"device": -1}

    torch.set_num_threads(setup.threads)
    torch.set_grad_enabled(False)
    return pipeline("text-classification", model=setup.model, truncation=True, max_length=LENGTH, **on_gpu)


def ray_pipeline(setup: Setup, port: int) -> None:
    """As the documentation of Ray Serve shows it."""
    from ray import serve

    @serve.deployment(num_replicas=1, ray_actor_options=_alike(setup))
    class Classifier:
        def __init__(self) -> None:
            self.pipe = pipeline_of(setup)

        async def __call__(self, request: Any) -> Any:
            return self.pipe((await request.json())["text"])[0]

    _ray(Classifier.bind(), setup, port)  # type: ignore[attr-defined]


def ray_batch(setup: Setup, port: int) -> None:
    """The same with `@serve.batch`, and as many requests under way as two batches take."""
    from ray import serve

    @serve.deployment(num_replicas=1, ray_actor_options=_alike(setup), max_ongoing_requests=2 * BATCH)
    class Classifier:
        def __init__(self) -> None:
            self.pipe = pipeline_of(setup)

        @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT)
        async def answers(self, texts: list[str]) -> list[Any]:
            return list(self.pipe(texts, batch_size=BATCH))

        async def __call__(self, request: Any) -> Any:
            return await self.answers((await request.json())["text"])

    _ray(Classifier.bind(), setup, port)  # type: ignore[attr-defined]


def _alike(setup: Setup) -> dict[str, Any]:
    """Ray gives a replica one thread for each CPU that it reserves, unless it is told otherwise."""
    return {
        "num_cpus": 1,
        "num_gpus": float(setup.device == "cuda"),
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(setup.threads)}},
    }


def _ray(application: Any, setup: Setup, port: int) -> None:
    import ray
    from ray import serve

    from raypath.deploy.local.state import scratch

    place = scratch(Path(setup.folder))
    ray.init(address="local", num_cpus=max(setup.threads, 2), include_dashboard=False, _temp_dir=str(place))
    try:
        logs = {"enable_access_log": False, "log_level": "WARNING"}
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=logs)
        serve.run(application, route_prefix="/")
        _until_told()
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(place, ignore_errors=True)


def mlflow(setup: Setup, port: int) -> None:
    """`mlflow models serve` of the flavour transformers."""
    place = Path(setup.folder) / "mlflow-transformers"
    if not place.exists():
        import mlflow.transformers

        settings = {"truncation": True, "max_length": LENGTH}
        mlflow.transformers.save_model(
            pipeline_of(setup), str(place), model_config=settings, pip_requirements=["mlflow", "transformers", "torch"]
        )
    words = ["models", "serve", "-m", str(place), "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    # MLflow looks for uvicorn on the path.
    programs = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *words], env)


def litserve(setup: Setup, port: int) -> None:
    """LitServe with batches, one worker."""
    from litserve import LitServer

    from tests.bench.lit_api import Classifier

    server = LitServer(
        Classifier(setup, max_batch_size=BATCH, batch_timeout=WAIT), accelerator=setup.device, workers_per_device=1
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)


def raypath(setup: Setup, port: int) -> None:
    """Our own: a home with its Ray and MLflow, the model registered in it, the step `serve`. Stops them at the end."""
    from raypath.deploy.local import services as local
    from raypath.deploy.local.ray_connection import connection

    home = Path(setup.folder) / "home"
    os.environ["RAYPATH_SERVE_PORT"] = str(port)
    try:
        services = local.up(home, dashboard=False)
        connection.connect(home)
        assert services.mlflow is not None
        register_and_serve(setup, home, services.mlflow.address, f"http://127.0.0.1:{port}")
        _until_told()
    finally:
        local.down(home)


def register_and_serve(setup: Setup, home: Path, mlflow: str, url: str) -> None:
    """The steps `register` and `serve` with the model, as a run takes them. mlflow, url: addresses of the home's."""
    from raypath.components.core.context import Tracking
    from raypath.components.register import RegisterParams, register
    from raypath.components.serve import serve
    from raypath.components.serving.params import ServeParams
    from tests.bench.direct import model_artifact, report_of
    from tests.bench.reviews import context

    folder = Path(setup.folder)
    ctx = replace(
        context(folder, "register", setup.threads),
        tracking=Tracking(uri=mlflow, experiment="bench", spool=str(home / "spool")),
        # The same key every time: only the first time it makes a version.
        key="bench",
        signing=home / "signing",
        serve_url=url,
        api_keys=folder / ACCESS,
    )
    model = model_artifact(Path(setup.model))
    release = register.fn(ctx, model, report_of(model, setup.test), RegisterParams(name="bench"))
    own = context(folder, "serve", setup.threads)
    ctx = replace(ctx, step=own.step, out=own.out, scratch=own.scratch, progress=own.progress)
    serve.fn(ctx, release, ServeParams().override({"gpus": float(setup.device == "cuda"), **setup.serve}))


def _until_told() -> None:
    """Wait for SIGTERM, whatever Ray has set to happen then."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        time.sleep(3600)


SERVERS = {
    "ray-pipeline": ray_pipeline,
    "ray-batch": ray_batch,
    "mlflow": mlflow,
    "litserve": litserve,
    "raypath": raypath,
}


if __name__ == "__main__":
    # By their import path: replicas and workers get what lies in a module by name, in __main__ by copy.
    from tests.bench import servers

    name, given, wanted = sys.argv[1:]
    servers.SERVERS[name](servers.Setup.model_validate_json(Path(given).read_text(encoding="utf-8")), int(wanted))
