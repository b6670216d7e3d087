"""Progress of a running step, in a small file that the step writes and the live view reads."""

from __future__ import annotations

import json
from pathlib import Path


def progress_file(home: Path, key: str) -> Path:
    """Return the path of the file to which the step with this key writes its progress."""
    return home / "attempts" / f"{key}.progress"


def read_progress(home: Path, key: str) -> tuple[float, float, str]:
    """Return (done, total, message) as last reported; zeros when nothing was."""
    try:
        line = json.loads(progress_file(home, key).read_text("utf-8"))
        return float(line["done"]), float(line["total"]), str(line["message"])
    except (OSError, ValueError, KeyError):
        return 0.0, 0.0, ""
