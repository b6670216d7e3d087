"""What this machine has, within the control group that the process is held to."""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Limits of the control group, in files (cgroup v2)."""


def free_memory() -> float:
    """Bytes that the machine, or the container, has left."""
    import psutil

    free = float(psutil.virtual_memory().available)
    limit, used = (_number(CGROUP / f"memory.{name}") for name in ("max", "current"))
    return min(free, limit - used) if limit and used else free


def total_memory() -> int:
    """Bytes of memory of the machine, or of the container."""
    import psutil

    total = psutil.virtual_memory().total
    return int(min(total, _number(CGROUP / "memory.max") or total))


def cpu_count() -> int:
    """CPU cores that this process may use, at least one; half a core counts as one."""
    import math
    import os

    have = len(os.sched_getaffinity(0))
    quota, _, period = _text(CGROUP / "cpu.max").partition(" ")
    return max(1, min(have, math.ceil(int(quota) / int(period)))) if quota.isdigit() and period.isdigit() else have


def _number(path: Path) -> float:
    """A number from a file of the kernel; 0 for `max` and where there is none."""
    try:
        return float(_text(path))
    except ValueError:
        return 0.0


def _text(path: Path) -> str:
    """The text of a file of the kernel, "" where there is none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def gpu_count() -> int:
    """Number of CUDA devices on this machine, counted without importing torch."""
    import os

    return len([name for name in os.listdir("/dev") if name.startswith("nvidia") and name[6:].isdigit()])
