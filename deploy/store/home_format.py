"""Format version of a home folder, in HOME/raypath.json.

1   homes without the file: records and run history are readable, but their cache keys are of another scheme, so every
    step runs again once; services that still run have to be stopped before others are started
2   the current format

`"encrypted": true` marks a home that encrypts what is written to it: without the file of its keys, nothing may be
written in plaintext in silence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raypath.components.core.errors import UserError
from raypath.components.core.files import write_atomically
from raypath.components.encryption import vault

FORMAT = 2
_ENCRYPTED = "encrypted"


def check_format(home: Path) -> None:
    """Write the format version into a home that has none. Raises UserError for a home of a later Raypath.

    Raises UserError as well for an encrypted home whose keys are missing or corrupt.
    """
    file = home / "raypath.json"
    found = _read(file)
    if found.get("format", 0) > FORMAT:
        fix = "upgrade raypath, or set RAYPATH_HOME to another folder"
        raise UserError(f"{home} has format {found['format']}; this Raypath reads up to {FORMAT}", fix=fix)
    check_keys(home)
    wanted = found | {"format": FORMAT} | ({_ENCRYPTED: True} if vault.is_encrypted(home) else {})
    if found != wanted:
        write_atomically(file, json.dumps(wanted))


def check_keys(home: Path) -> None:
    """Raise UserError for an encrypted home whose keys are missing or corrupt."""
    vault.read_settings(home)
    if _read(home / "raypath.json").get(_ENCRYPTED) and not vault.is_encrypted(home):
        what = f"{home} is encrypted, and {vault.FOLDER}/{vault.FILE} is missing, without which nothing can be read"
        fix = "restore a copy of it, such as that of a backup, or set RAYPATH_HOME to a new folder"
        raise UserError(what, fix=fix)


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a home's file, {} without one. Raises UserError for a corrupt one."""
    try:
        found = json.loads(file.read_text("utf-8"))
        return {**found, "format": int(found["format"])}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} is corrupt", fix=f'write {{"format": {FORMAT}}} into it') from None
