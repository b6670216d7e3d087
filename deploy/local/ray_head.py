"""Ray head for one machine: `ray start --head --block` without the parts that a single machine does not use.

Run as `python -m raypath.deploy.local.ray_head start --head --block ...`. Ray's command line imports those of Serve,
Jobs and State, which load pandas and FastAPI and stay in memory as long as the head runs. They are left out, and so are
the Ray Client server, the autoscaler and the log monitor: a head is ready in 4.5 s and takes 530 MiB, instead of 8 to
14 s and 730 MiB (Ray 2.60, two cores). Without the dashboard, which only jobs need: 4.2 s and 320 MiB.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raypath.deploy.execution.process import configure_process

_UNUSED_COMMANDS = ("ray.serve.scripts", "ray.util.state.state_cli", "ray.dashboard.modules.job.cli")
_HOOK = "RAY_START_HOOK"
START_SECONDS = 90.0
"""Maximum time for the node to register. Ray's own limit is 30 s, which a busy machine misses."""


def arguments(ports: Mapping[str, int], temp: Path, spill: Path, dashboard: bool, store_bytes: int) -> list[str]:
    """Return the arguments of `ray start`. Everything listens on 127.0.0.1; port 0 lets the system choose."""
    chosen = {"port": ports["ray"], "dashboard-port": ports["dashboard"], "object-store-memory": store_bytes}
    chosen |= dict.fromkeys(("node-manager-port", "object-manager-port", "min-worker-port", "max-worker-port"), 0)
    chosen |= dict.fromkeys(("dashboard-agent-listen-port", "dashboard-agent-grpc-port"), 0)
    chosen |= dict.fromkeys(("metrics-export-port", "runtime-env-agent-port"), 0)
    text = {"node-ip-address": "127.0.0.1", "dashboard-host": "127.0.0.1"}
    text |= {"temp-dir": str(temp), "object-spilling-directory": str(spill)}
    text |= {"include-dashboard": str(dashboard).lower(), "include-log-monitor": "false", "log-color": "false"}
    options = [f"--{name}={value}" for name, value in {**chosen, **text}.items()]
    return ["start", "--head", "--block", "--disable-usage-stats", "--no-monitor", *options]


def environment(ports: Mapping[str, int]) -> dict[str, str]:
    """Return the environment of the head, which its workers inherit."""
    return {
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # else it waits 30 s to move Serve to another node
        "DASHBOARD_METRIC_PORT": str(ports["metrics"]),  # else 44227 in every cluster
    }


def trim(params: Any, head: bool) -> None:
    """Hook that Ray calls when a node starts: disables the Ray Client server. Children do not inherit the hook."""
    os.environ.pop(_HOOK, None)
    params.ray_client_server_port = None


def wait_longer(get_node: Callable[..., Any], seconds: float = START_SECONDS) -> Callable[..., Any]:
    """Wrap Ray's `get_node`: ask again until the node has registered, where Ray would give up after its own limit."""

    def wait(*args: Any) -> Any:
        end = time.monotonic() + seconds
        while True:
            try:
                return get_node(*args)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)

    return wait


def main() -> None:
    """Run Ray's own command line, with the unused commands marked as not installed."""
    configure_process()
    os.environ[_HOOK] = "raypath.deploy.local.ray_head.trim"
    for name in _UNUSED_COMMANDS:
        sys.modules[name] = None  # type: ignore[assignment]
    from ray._private import services
    from ray.scripts.scripts import main as ray_command

    services.get_node = wait_longer(services.get_node)
    ray_command()


if __name__ == "__main__":
    main()
