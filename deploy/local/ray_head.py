"""A Ray head for one machine: `ray start --head --block`, less what such a head never uses.

Run as `python -m raypath.deploy.local.ray_head start --head --block ...`. Ray's command line imports those of Serve,
Jobs and State,
which pull in pandas and FastAPI, and keeps them for as long as the head runs. They are left out, and so are the servers
of Ray Client and of the autoscaler and the log monitor: a head is ready in 4.5 s and takes 530 MiB, where `ray start`
took 8 to 14 s and 730 MiB (Ray 2.60, two cores). Without the dashboard, which only jobs need: 4.2 s and 320 MiB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_UNUSED_COMMANDS = ("ray.serve.scripts", "ray.util.state.state_cli", "ray.dashboard.modules.job.cli")
_HOOK = "RAY_START_HOOK"


def arguments(ports: Mapping[str, int], temp: Path, spill: Path, dashboard: bool, store_bytes: int) -> list[str]:
    """Everything on 127.0.0.1; a port of 0 is chosen by the system, so that no two clusters clash."""
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
    """For the head and, through it, for its workers."""
    return {
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # it waits 30 s to move Serve to another node: there is none
        "DASHBOARD_METRIC_PORT": str(ports["metrics"]),  # else 44227 for every cluster
    }


def trim(params: Any, head: bool) -> None:
    """Ray's hook at the start of a node: no Ray Client server; the hook is not for the head's own children."""
    os.environ.pop(_HOOK, None)
    params.ray_client_server_port = None


def main() -> None:
    """Hand over to Ray's own command line, which takes the unused commands as not installed."""
    os.umask(0o077)
    os.environ[_HOOK] = "raypath.deploy.local.ray_head.trim"
    for name in _UNUSED_COMMANDS:
        sys.modules[name] = None  # type: ignore[assignment]
    from ray.scripts.scripts import main as ray_command

    ray_command()


if __name__ == "__main__":
    main()
