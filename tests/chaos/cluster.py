"""A real Ray cluster of several nodes on this machine, with token authentication, whose nodes can be killed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.network import Network

BIN = Path(sys.executable).parent
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_raylet_start_wait_time_s": "120"}
HEAD = "127.0.0.2"
"""The head's address, where nodes share loopback."""
AGENTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")


def free_port() -> int:
    """One from 20000 to 29799: Ray refuses 10002 to 19999, and above lie those of outgoing connections."""
    while True:
        port = 20_000 + secrets.randbelow(9_800)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Nodes:
    """A head (with the dashboard at `address`) and, by name, worker nodes. Use it as a context manager.

    network: where each node has a namespace and an address of its own; else all share loopback. env: of the nodes,
    beside that of this process.
    """

    def __init__(
        self, head: int = 2, cpus: int = 2, network: Network | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        # Ray's sockets lie in it: its path has to be short.
        self.temp = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))
        self.token = self.temp / "token"
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self.port, self.dashboard = free_port(), free_port()
        self.network = network
        self.address = ""
        self.cpus = {"head": head}
        self._each = cpus
        self._more = dict(env or {})
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.at: dict[str, str] = {}
        self._count = 1

    def __enter__(self) -> Nodes:
        ports = [f"--dashboard-port={self.dashboard}", f"--ray-client-server-port={free_port()}"]
        self._start("head", "--head", f"--port={self.port}", *ports)
        try:
            self.until(lambda: self.get("/api/jobs/") is not None)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.nodes)[::-1]:
            self.kill(name)
        for process in psutil.process_iter():
            if str(self.temp) in _line(process):
                process.kill()
        shutil.rmtree(self.temp, ignore_errors=True)

    @property
    def env(self) -> dict[str, str]:
        """For a client of it."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}

    def add(self, name: str, own: Path | None = None) -> None:
        """Start a worker node and wait until the head counts it. own: a folder that it has to itself (needs root)."""
        self._start(name, f"--address={self.at['head']}:{self.port}", own=own)
        self.until(lambda: name in self.alive())

    def kill(self, name: str) -> None:
        """End a node as a power cut does: all its processes at once."""
        process = self.nodes.pop(name)
        for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            try:
                each.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        process.wait()

    def running(self, title: str) -> dict[str, list[int]]:
        """By node: the processes there whose title begins like this, such as ray::step:tune."""
        found = {}
        for name, process in self.nodes.items():
            try:
                inside = psutil.Process(process.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            if pids := [each.pid for each in inside if _line(each).startswith(title)]:
                found[name] = pids
        return found

    def working(self, client: subprocess.Popen[str], title: str, ready: Callable[[], object], wait: float = 0) -> str:
        """The worker node where something of this title runs, `wait` seconds after it was seen and `ready()` held."""

        def found() -> str:
            assert client.poll() is None, f"ended before {title} was seen on a worker node"
            return next((name for name in self.running(title) if name != "head"), "") if ready() else ""

        self.until(found, 600)
        time.sleep(wait)
        return self.until(found)  # type: ignore[no-any-return]

    def alive(self) -> list[str]:
        """The names of the nodes that the head counts as alive."""
        found = self.get("/api/v0/nodes?detail=1") or {}
        listed = found.get("data", {}).get("result", {}).get("result", [])
        return [node["node_name"] for node in listed if node["state"] == "ALIVE"]

    def get(self, path: str) -> Any:
        """The dashboard's response; None without one."""
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"Bearer {self.token.read_text()}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def until(self, true: Any, seconds: float = 240) -> Any:
        """Wait, long enough for a busy machine; returns what `true` returned."""
        end = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < end, (self.temp / "log").read_text()[-3000:]
            time.sleep(0.05)
        return found

    def _start(self, name: str, *args: str, own: Path | None = None) -> None:
        # Nodes on loopback have an address of it each. Not 127.0.0.1, for which Ray takes that of the network card.
        self._count += 1
        address, before = self.network.host() if self.network else (f"127.0.0.{self._count}", [])
        if name == "head":
            # The dashboard is asked from outside the head's namespace, and otherwise by nobody but us.
            host = address if self.network else "127.0.0.1"
            args, self.address = (*args, f"--dashboard-host={host}"), f"http://{host}:{self.dashboard}"
        if own is not None:
            # A mount of its own in a namespace of its own: what is below the folder is nobody else's.
            script = f'mount -t tmpfs none {own} && exec "$@"'
            before = [*before, "unshare", "--mount", "sh", "-c", script, "sh"]
        command = [*before, *self._command(name, address), *args]
        env = {**os.environ, **QUIET, **self.env, **self._more, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        # Ray Train's clean-up after a lost controller asks for the cluster, and gives up where it finds several.
        env["RAY_ADDRESS"] = f"{self.at.get('head', address)}:{self.port}"
        with open(self.temp / "log", "ab") as log:
            made = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd="/", start_new_session=True)
        self.nodes[name], self.at[name] = made, address

    def _command(self, name: str, address: str) -> list[str]:
        """The command that starts a node."""
        # Not the program `ray`: an environment on top of another (the extra kubeflow) has no copy of it.
        start = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            f"--node-ip-address={address}",
            f"--node-name={name}",
        ]
        # A folder of its own, as on a machine of its own: a node that starts unpacks the working folder anew.
        start += [f"--temp-dir={self.temp / str(self._count)}", f"--num-cpus={self.cpus.get(name, self._each)}"]
        start += ["--object-store-memory=100000000", "--disable-usage-stats", "--include-log-monitor=false"]
        # Named, not 0: a raylet that has to learn them from its agents gives up after 15 s, on a busy machine too.
        return start + [f"--{port}={free_port()}" for port in AGENTS]


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
