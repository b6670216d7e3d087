"""Contexts by hand, finished artifacts, and one small Ray for the whole session."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raypath.components import Artifact, Context, Dataset
from raypath.deploy.local.ray_head import wait_longer
from tests.components.reading import Read
from tests.fork_server.start import fork_workers
from tests.mlflow_login import write_token
from tests.waiting import free_port


def _private_token() -> str:
    """A file with a token, readable by us alone; Ray would write one into the home folder."""
    folder = Path(tempfile.mkdtemp(prefix="raypath-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text("0" * 64)
    return str(path)


# Ray reads these when it is first imported, which a test module may do before any fixture runs. Here as in a home:
# reports of a training that do not wait 2 s, nothing that watches for machines to be taken away.
os.environ |= {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
if "RAY_AUTH_TOKEN_PATH" not in os.environ:
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": _private_token()}


@pytest.fixture
def settle() -> Callable[[Context, Any], Any]:
    """What the runner does with an artifact: absolute addresses, nested ones included."""

    def settle(ctx: Context, made: Artifact) -> Artifact:
        parts = {name: settle(ctx, part) for name, part in made.nested()}
        return made.finalized(str(ctx.out / made.uri), "", **parts)

    return settle


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray Data trips over its own deprecations whenever it copies its settings."""
    for item in items:
        if "ray_head" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"))


@pytest.fixture(scope="session")
def ray_head(forks: None) -> Iterator[None]:
    """A local Ray with two CPUs, whose workers are forked (tests/fork_server)."""
    import ray
    from ray._private import node, services

    # A short path, since those of its sockets may have 107 characters.
    place = tempfile.TemporaryDirectory(prefix="raypath-ray-", ignore_cleanup_errors=True)
    with place as folder, warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        # Ray does not wait for the processes it ends, and Popen complains of that when it is collected.
        warnings.simplefilter("ignore", ResourceWarning)
        patch.setattr(services, "get_node", wait_longer(services.get_node))
        # As a home has none. It looks at each log ten times a second, for drivers that print what workers print.
        patch.setattr(node.Node, "start_log_monitor", lambda _: None)
        fork_workers(patch)
        small = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 256 << 20}
        ray.init(num_cpus=2, _temp_dir=folder, **small)
        yield
        ray.shutdown()
        gc.collect()


@pytest.fixture(scope="session")
def _serve_address(ray_head: None) -> Iterator[str]:
    yield f"http://127.0.0.1:{free_port()}"
    from ray import serve

    serve.shutdown()


@pytest.fixture(scope="module")
def serve_url(_serve_address: str) -> Iterator[str]:
    """Address of a Ray Serve that modules share and the first step `serve` starts; applications end with a module."""
    yield _serve_address
    from ray import serve

    from raypath.components.serving.control import proxy

    if proxy.is_running():
        for name in serve.status().applications:
            serve.delete(name)


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on loopback, and a cache of its own for fetched versions."""
    place = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "raypath.deploy.local.mlflow_server",
        str(place / "mlflow.db"),
        str(place / "files"),
        str(port),
        str(write_token(place)),
    ]
    quiet = {"PYTHONWARNINGS": "ignore", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with pytest.MonkeyPatch.context() as patch, open(place / "log", "wb") as log:
        patch.setenv("RAYPATH_CACHE", str(place / "cache"))
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | quiet)
        try:
            _await_mlflow(f"http://127.0.0.1:{port}", server, place / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


def _await_mlflow(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    from raypath.components.registry.client import is_reachable

    end = time.monotonic() + 60
    while not is_reachable(uri):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


@pytest.fixture
def reading(make_context: Callable[..., Context]) -> Read:
    """`reading(uri, **params)` -> the dataset and its rows."""

    import pyarrow.parquet as pq

    from raypath.components.read import ReadParams, read

    def run(uri: Path | str, **fields: Any) -> tuple[Dataset, list[dict[str, Any]]]:
        ctx = make_context("read")
        made = read.fn(ctx, ReadParams(uri=str(uri), **fields))
        rows = pq.read_table(ctx.out).to_pylist()
        assert made.rows == len(rows)
        return made, rows

    return run
