"""What this machine has, within the control group that the process is held to."""

from __future__ import annotations

from pathlib import Path


def free_memory() -> float:
    """Bytes that the machine, or the container, has left."""
    import psutil

    free = float(psutil.virtual_memory().available)
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    return min(free, limit - used) if limit and used else free


def _number(path: str) -> float:
    """What a file of the kernel says; 0 for `max` and where there is none."""
    try:
        return float(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0


def cores() -> int:
    """CPU cores that this process may use, at least one; half a core counts as one."""
    import math
    import os

    have = len(os.sched_getaffinity(0))
    quota, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    return max(1, min(have, math.ceil(int(quota) / int(period)))) if quota.isdigit() and period.isdigit() else have


def _text(path: str) -> str:
    """What a file of the kernel says, "" where there is none."""
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
