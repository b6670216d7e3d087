"""Start a server of forks, and have Ray's workers forked by it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fork_server import client, setup_worker

PLAIN = os.environ.get("RAYPATH_TESTS_PLAIN") == "1"
"""Workers of Ray start as Ray starts them."""
ROOT = Path(__file__).parents[2]
WORKERS = (
    *("raypath.components.models.base_models", "raypath.components.serving.api.routes", "raypath.components.finetune"),
    *("raypath.components.training.loop.trainer", "raypath.components.training.ray_train", "optuna", "uvicorn"),
    *("pyarrow.parquet", "pandas", "sklearn.metrics", "fastapi", "torch.distributed.fsdp", "torch.distributed.tensor"),
    *("transformers.models.bert.modeling_bert", "transformers.models.auto", "mlflow.pyfunc"),
    *("raypath.components.evaluate", "raypath.components.register", "raypath.components.predict"),
)
"""What workers of Ray import."""


@contextlib.contextmanager
def fork_server(modules: Sequence[str]) -> Iterator[None]:
    """Run a server meanwhile, whose socket the environment names."""
    with tempfile.TemporaryDirectory(prefix="raypath-forks-") as folder:
        path = Path(folder) / "socket"
        command = [sys.executable, "-m", "tests.fork_server.server", str(path), *modules]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, env=environment) as server:
            try:
                while not path.exists():
                    assert server.poll() is None
                    time.sleep(0.02)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv(client.SERVER, str(path))
                    yield
            finally:
                server.communicate()


def fork_workers(patch: pytest.MonkeyPatch) -> None:
    """Have each worker of a Ray that this process starts forked by the server."""
    if PLAIN:
        return
    from ray._private import parameter

    complete = parameter.RayParams.update_if_absent

    def update(params: Any, **values: Any) -> None:
        """Give a node that starts the programs of its workers."""
        if "worker_path" in values:
            for name, variable, program in (
                ("worker_path", client.PROGRAM, client.__file__),
                ("setup_worker_path", setup_worker.SETUP, setup_worker.__file__),
            ):
                patch.setenv(variable, values[name])
                values[name] = program
        complete(params, **values)

    patch.setattr(parameter.RayParams, "update_if_absent", update)


@contextlib.contextmanager
def forked_heads() -> Iterator[None]:
    """Have the workers of homes whose Ray head this process starts meanwhile forked by the server."""
    from raypath.deploy.local import processes

    start = processes.spawn

    def spawn(module: str, args: Iterable[str], env: Mapping[str, str], log: Path) -> tuple[int, float]:
        if module == "raypath.deploy.local.ray_head" and not PLAIN:
            module = "tests.fork_server.head"
            env = {**env, "PYTHONPATH": f"{env['PYTHONPATH']}{os.pathsep}{ROOT}"}
        return start(module, args, env, log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "spawn", spawn)
        yield
