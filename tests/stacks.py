"""What the processes of a folder are doing, for a test that waited for one too long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

PY_SPY = Path(sys.executable).with_name("py-spy")
"""A dependency of Ray's dashboard."""


def stacks_below(folder: Path) -> str:
    """The Python stacks of all threads of the processes that run in `folder`."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if Path(process.info["cwd"] or "/").is_relative_to(folder):
            command = [str(PY_SPY), "dump", "--nonblocking", "--pid", str(process.pid)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            found.append(f"{process.info['cmdline'][:3]}\n{done.stdout or done.stderr}")
    return "\n".join(found)
