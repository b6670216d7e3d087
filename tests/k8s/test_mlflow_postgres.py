"""MLflow's server on a real Postgres, as in the overlay gpu-prod: runs, models and aliases are rows of its tables."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raypath.components.tracking.server.app import TOKEN_FILE
from tests.k8s.manifests import K8S, documents, pods
from tests.mlflow_login import write_token
from tests.waiting import free_port, until

pytest.importorskip("psycopg", reason="the extra cluster is not installed")


def _program(name: str) -> str:
    """A program of Postgres; Debian keeps them in a folder for each version."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    return found or pytest.skip(f"{name} is not installed (Debian: apt-get install postgresql)")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URI of an empty database on loopback. Postgres does not run as root: root hands over to the user postgres."""
    initdb, server = _program("initdb"), _program("postgres")
    user = None
    if os.geteuid() == 0:
        if "postgres" not in {each.pw_name for each in pwd.getpwall()}:
            pytest.skip("root needs a user named postgres")
        user = "postgres"
    folder = Path(tempfile.mkdtemp(prefix="raypath-postgres-"))
    try:
        (folder / "password").write_text("p@ss/word")
        for path in (folder, folder / "password"):
            if user:
                shutil.chown(path, user)
        account = ["--username=mlflow", "--auth=scram-sha-256", f"--pwfile={folder}/password"]
        subprocess.run(
            [initdb, "--no-sync", "--encoding=UTF8", *account, f"--pgdata={folder}/data"],
            check=True, capture_output=True, user=user, cwd=folder,
        )  # fmt: skip
        port = free_port()
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [server, "-D", f"{folder}/data", "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)],
                stdout=log, stderr=log, user=user, cwd=folder,
            )  # fmt: skip
        try:
            until(lambda: b"ready to accept connections" in (folder / "log").read_bytes())
            yield f"postgresql://mlflow:p%40ss%2Fword@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _mlflow(database: str, folder: Path) -> Iterator[str]:
    """The manifest's command and environment, on loopback, with the database as the overlay names it."""
    container = next(pods(documents((K8S / "base" / "mlflow.yaml").read_text())))["containers"][0]
    port = free_port()
    swap = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}", "--workers=2": "--workers=1"}
    command = [swap.get(word, word) for word in container["command"][2:]]
    env = {each["name"]: each["value"] for each in container["env"] if each["name"] != "MLFLOW_SERVER_ALLOWED_HOSTS"}
    env[TOKEN_FILE] = str(write_token(folder))
    env |= {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts")}
    env |= {"HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=os.environ | env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        from raypath.components.registry.client import is_reachable

        uri = f"http://127.0.0.1:{port}"
        until(lambda: process.poll() is not None or is_reachable(uri), 120)
        assert process.poll() is None, (folder / "log").read_text()
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_runs_and_models_are_kept_in_postgres(postgres: str, tmp_path: Path) -> None:
    import psycopg
    from mlflow import MlflowClient

    with _mlflow(postgres, tmp_path) as uri:
        client = MlflowClient(uri)
        run = client.create_run(client.create_experiment("reviews"), run_name="好评")
        client.log_metric(run.info.run_id, "loss", 0.25, step=3)
        client.create_registered_model("reviews")
        client.create_model_version("reviews", f"{run.info.artifact_uri}/model", run.info.run_id)
        client.set_registered_model_alias("reviews", "champion", "1")
        assert client.get_model_version_by_alias("reviews", "champion").run_id == run.info.run_id
        assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.25}
    with psycopg.connect(postgres) as direct:
        assert direct.execute("SELECT value, step FROM metrics WHERE key = 'loss'").fetchall() == [(0.25, 3)]
        assert direct.execute("SELECT name FROM runs").fetchall() == [("好评",)]
        assert direct.execute("SELECT alias, version FROM registered_model_aliases").fetchall() == [("champion", 1)]
