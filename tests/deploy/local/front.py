"""HAProxy as Ray Serve starts it, through our script, before any servers: `python -m tests.deploy.local.front`
writes what
Ray would, by Ray's own template."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from raypath.deploy.local import haproxy
from tests.waiting import free_port

ROOT = Path(__file__).parents[3]
Started = subprocess.Popen[bytes]


@contextmanager
def front(folder: Path, servers: Sequence[int], route: str = "/", public_bind: str = "") -> Iterator[int]:
    """The port of an HAProxy that hands to servers on these ports. The folder's path has to be short."""
    folder.mkdir(exist_ok=True)
    haproxy.prepare(folder, public_bind)
    told = haproxy.environment({name: free_port() for name in haproxy.PORTS}, folder)
    port, told = free_port(), {**os.environ, **told, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.deploy.local.front", route, str(port), *map(str, servers)]
    subprocess.run(command, env=told, check=True, timeout=60)
    starter, config = told["RAY_SERVE_HAPROXY_BINARY_PATH"], told["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]
    with (folder / "log").open("wb") as log, subprocess.Popen([starter, "-db", "-f", config], stderr=log) as process:
        try:
            _await(process, port)
            yield port
        finally:
            process.terminate()


def _await(process: Started, port: int) -> None:
    """Until it listens and has seen that the servers are well."""
    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"HAProxy did not begin: {process.poll()}")


def main(route: str, port: int, servers: list[int]) -> None:
    """Write the configuration that Ray would, to where the environment says."""
    from ray.serve._private import haproxy
    from ray.serve.config import HTTPOptions

    there = [haproxy.ServerConfig(name=f"replica_{n}", host="127.0.0.1", port=at) for n, at in enumerate(servers)]
    backend = haproxy.BackendConfig(name="http-m", path_prefix=route, app_name="m", servers=there)
    config = haproxy.HAProxyConfig(http_options=HTTPOptions(host="127.0.0.1", port=port), is_head=True)
    config.has_received_routes = config.has_received_servers = True
    haproxy.HAProxyApi(config, {"m": backend})._generate_config_file_internal()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(port) for port in sys.argv[3:]])
