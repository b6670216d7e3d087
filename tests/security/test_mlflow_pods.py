"""MLflow as pods run it: two workers, the token in a file, and the command that prints a link."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raypath.components.tracking.server.app import TOKEN_FILE
from tests.mlflow_login import TOKEN, write_token
from tests.waiting import free_port, until

SERVER = [sys.executable, "-m", "raypath.deploy.kubernetes.mlflow_server"]


def _status(port: int, path: str, **headers: str) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
        except OSError:
            return 0


def _environment(folder: Path, token: Path) -> dict[str, str]:
    told = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db", TOKEN_FILE: str(token)}
    return {**os.environ, **told, "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "files")}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_link_works_once_whichever_worker_takes_it(tmp_path: Path) -> None:
    port, env = free_port(), _environment(tmp_path, write_token(tmp_path))
    with open(tmp_path / "log", "wb") as log:
        command = [*SERVER, "serve", "--host=127.0.0.1", f"--port={port}", "--workers=2"]
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: process.poll() is not None or _status(port, "/health") == 200, 120)
        assert process.poll() is None, (tmp_path / "log").read_text()
        search = "/api/2.0/mlflow/experiments/search?max_results=1"
        assert _status(port, search) == 401
        assert _status(port, search, Authorization=f"Bearer {TOKEN}") == 200
        done = subprocess.run(
            [*SERVER, "link", f"http://127.0.0.1:{port}/"], env=env, capture_output=True, text=True, check=True
        )
        path = done.stdout.strip().removeprefix(f"http://127.0.0.1:{port}")
        assert sorted(_status(port, path) for _ in range(8)) == [200, *[401] * 7]
        assert TOKEN not in done.stdout + (tmp_path / "log").read_text()
        assert path.partition("=")[2] not in (tmp_path / "log").read_text()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.parametrize("token", ["", "short"])
def test_without_a_token_it_does_not_start(token: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token)
    done = subprocess.run(
        [*SERVER, "link", "http://x"], env=_environment(tmp_path, tmp_path / "token"), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "wanted 32 or more" in done.stderr
