"""The contenders that serve: how each is started and stopped, what it is asked, where its answer has the label."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from raypath.components.serving.metering.api_keys import local_key
from raypath.deploy.local import ports
from raypath.deploy.local import services as local
from raypath.deploy.local.state import environment, token
from tests.bench.servers import ACCESS, Setup

ROOT = Path(__file__).resolve().parents[2]
START, STOP = 240.0, 40.0
"""Seconds that a server may take."""


@dataclass(frozen=True)
class Served:
    """A server that answers."""

    url: str
    ask: Callable[[str], Any]
    """A text -> the body of a request, before it is JSON."""
    label: Callable[[Any], Any]
    """The JSON of an answer -> the label."""
    headers: dict[str, str] = field(default_factory=dict)
    process: int = 0
    """Number of the process that all others come from."""

    def replicas_mib(self) -> float:
        """Resident memory of all replicas of Ray Serve, in MiB."""
        found = 0
        for process in psutil.Process(self.process).children(recursive=True):
            with suppress(psutil.Error):
                if "ServeReplica" in " ".join(process.cmdline()):
                    found += process.memory_info().rss
        return found / (1 << 20)

    def request(self, text: str, seconds: float = 30.0) -> Any:
        """The label of one text. Raises OSError, ValueError, KeyError."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        body = json.dumps(self.ask(text)).encode()
        wanted = urllib.request.Request(self.url, body, {"Content-Type": "application/json", **self.headers})
        with opener.open(wanted, timeout=seconds) as reply:
            return self.label(json.load(reply))


@contextmanager
def ray_pipeline(setup: Setup) -> Iterator[Served]:
    """Ray Serve, one text at a time."""
    with _server("ray-pipeline", setup) as (port, process):
        yield _ready(setup, Served(f"http://127.0.0.1:{port}/", _text, _label, process=process))


@contextmanager
def ray_batch(setup: Setup) -> Iterator[Served]:
    """Ray Serve with `@serve.batch`."""
    with _server("ray-batch", setup) as (port, process):
        yield _ready(setup, Served(f"http://127.0.0.1:{port}/", _text, _label, process=process))


@contextmanager
def mlflow(setup: Setup) -> Iterator[Served]:
    """`mlflow models serve`."""

    def label(answer: Any) -> Any:
        return answer["predictions"][0]["label"]

    with _server("mlflow", setup) as (port, process):
        url = f"http://127.0.0.1:{port}/invocations"
        yield _ready(setup, Served(url, lambda text: {"inputs": [text]}, label, process=process))


@contextmanager
def litserve(setup: Setup) -> Iterator[Served]:
    """LitServe with batches."""
    with _server("litserve", setup) as (port, process):
        yield _ready(setup, Served(f"http://127.0.0.1:{port}/predict", _text, _label, process=process))


@contextmanager
def raypath(setup: Setup) -> Iterator[Served]:
    """Our own, which asks for a key."""
    try:
        with _server("raypath", setup) as (port, process):
            yield _ready(setup, endpoint(setup, f"http://127.0.0.1:{port}", process))
    finally:
        local.down(Path(setup.folder) / "home")


def endpoint(setup: Setup, url: str, process: int = 0) -> Served:
    """Our endpoint at this address, with the key that `servers.register_and_serve` has made."""

    def label(answer: Any) -> Any:
        return answer["predictions"][0]["label"]

    headers = {"authorization": f"Bearer {local_key(Path(setup.folder) / ACCESS).read_text()}"}
    return Served(f"{url}/predict", _text, label, headers, process)


CONTENDERS: dict[str, Callable[[Setup], AbstractContextManager[Served]]] = {
    "ray-pipeline": ray_pipeline,
    "ray-batch": ray_batch,
    "mlflow": mlflow,
    "litserve": litserve,
    "raypath": raypath,
}


def _text(text: str) -> Any:
    return {"text": text}


def _label(answer: Any) -> Any:
    return answer["label"]


def child_environment(setup_folder: Path, threads: int, device: str = "cpu") -> dict[str, str]:
    """No network, the same threads for all, a GPU if asked for, our code, and a cache and a token of its own."""
    token(setup_folder)
    alike = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    own = {"PYTHONPATH": str(ROOT), "RAYPATH_CACHE": str(setup_folder / "cache"), "PYTHONWARNINGS": "ignore"}
    offline = {"HF_HUB_OFFLINE": "1", **({} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""})}
    found = {**os.environ, **environment(setup_folder), **alike, **own, **offline}
    return {name: value for name, value in found.items() if name != "RAY_ADDRESS"}


@contextmanager
def _server(name: str, setup: Setup) -> Iterator[tuple[int, int]]:
    """A server's process: its port, its number. Leaves no process behind."""
    folder = Path(setup.folder)
    given, log = folder / f"{name}.json", folder / f"{name}.log"
    given.write_text(setup.model_dump_json(), encoding="utf-8")
    port = ports.choose(folder, {}, "serve")
    command = [sys.executable, "-m", "tests.bench.servers", name, str(given), str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=child_environment(folder, setup.threads, setup.device),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield port, process.pid
    except BaseException:
        print(log.read_text(encoding="utf-8", errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, then SIGKILL to whatever of its family is still there; the number of those."""
    family: list[psutil.Process] = []
    with suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP)
    _, left = psutil.wait_procs(family, timeout=3.0)
    for one in left:
        with suppress(psutil.Error):
            one.kill()
    process.kill()
    process.wait()
    psutil.wait_procs(left, timeout=5.0)
    return len(left)


def _ready(setup: Setup, served: Served) -> Served:
    """Once it answers. Raises SystemExit when it ended or is silent."""
    end = time.monotonic() + START
    while True:
        try:
            served.request(setup.texts[0])
            return served
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            process = psutil.Process(served.process) if psutil.pid_exists(served.process) else None
            if process is None or process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > end:
                raise SystemExit(f"{served.url} does not answer: {error}") from None
        time.sleep(0.2)
