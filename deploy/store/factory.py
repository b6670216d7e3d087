"""Open the artifact store that RAYPATH_STORE names."""

from __future__ import annotations

import os
from pathlib import Path

from raypath.deploy.store.store import SHARED, Store


def open_store(home: Path, remote: str | None = None) -> Store:
    """The store that `remote` names (None: what RAYPATH_STORE says), ready for use; `home` keeps the diary.

    Raises UserError or Unavailable when it cannot be used.
    """
    remote = os.environ.get(SHARED, "") if remote is None else remote
    if not remote:
        return Store(home).open()
    if "://" in remote:
        from raypath.deploy.store.object_store import ObjectStore

        return ObjectStore(home, remote).open()
    return Store(home, Path(remote)).open()
