"""Format version of a home folder, in HOME/raypath.json.

1   homes without the file: records and run history are readable, but their cache keys are of another scheme, so every
    step runs again once; services that still run have to be stopped before others are started
2   the current format
"""

from __future__ import annotations

import json
from pathlib import Path

from raypath.components.core.errors import UserError
from raypath.components.core.files import write_atomically

FORMAT = 2


def check_format(home: Path) -> None:
    """Write the format version into a home that has none. Raises UserError for a home of a later Raypath."""
    file = home / "raypath.json"
    try:
        found = int(json.loads(file.read_text("utf-8"))["format"])
    except FileNotFoundError:
        write_atomically(file, json.dumps({"format": FORMAT}))
        return
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} is corrupt", fix=f'write {{"format": {FORMAT}}} into it') from None
    if found > FORMAT:
        fix = "upgrade raypath, or set RAYPATH_HOME to another folder"
        raise UserError(f"{home} has format {found}; this Raypath reads up to {FORMAT}", fix=fix)
    if found < FORMAT:
        write_atomically(file, json.dumps({"format": FORMAT}))
