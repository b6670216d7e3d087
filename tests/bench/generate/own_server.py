"""Raypath's service: `python -m tests.bench.generate.own_server SETUP.json PORT`, until SIGTERM.

A home with its Ray and MLflow, the model registered in it, and the step `serve` with the settings of the workflow
`chat`: what `raypath run chat` starts.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from raypath.components.core.artifacts import Dataset, Report
from tests.bench.generate.contenders import NAME, Setup
from tests.bench.servers import ACCESS


def serve_model(setup: Setup, port: int) -> None:
    """Start the home, register the model and serve it, until SIGTERM."""
    from raypath.deploy.local import services as local
    from raypath.deploy.local.ray_connection import connection

    home = Path(setup.folder) / "home"
    os.environ["RAYPATH_SERVE_PORT"] = str(port)
    try:
        services = local.up(home, dashboard=False)
        connection.connect(home)
        assert services.mlflow is not None
        _register_and_serve(setup, home, services.mlflow.address, f"http://127.0.0.1:{port}")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            time.sleep(3600)
    finally:
        local.down(home)


def _register_and_serve(setup: Setup, home: Path, mlflow: str, url: str) -> None:
    from raypath.components.core.context import Tracking
    from raypath.components.models.process import gpu_count
    from raypath.components.register import RegisterParams, register
    from raypath.components.serve import serve
    from raypath.workflows.chat import Chat
    from tests.bench.direct import model_artifact
    from tests.bench.reviews import context

    folder = Path(setup.folder)
    ctx = replace(
        context(folder, "register", setup.threads),
        tracking=Tracking(uri=mlflow, experiment="bench", spool=str(home / "spool")),
        # The same key every time: only the first time it makes a version.
        key=NAME,
        signing=home / "signing",
        serve_url=url,
        api_keys=folder / ACCESS,
    )
    model = model_artifact(Path(setup.registered))
    report = Report(model=model, data=Dataset(uri=setup.folder, digest="none", rows=1), metrics={"loss": 1.0})
    release = register.fn(ctx, model, report, RegisterParams(name=NAME, better_on="loss"))
    own = context(folder, "serve", setup.threads)
    ctx = replace(ctx, step=own.step, out=own.out, scratch=own.scratch, progress=own.progress)
    # No version follows, for which the GPU would need room.
    on_gpu = {"gpus": 1.0, "gpu_memory_share": 0.9} if gpu_count() else {}
    serve.fn(ctx, release, Chat().serve.model_copy(update=on_gpu))


if __name__ == "__main__":
    serve_model(Setup.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8")), int(sys.argv[2]))
