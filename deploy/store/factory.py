"""Open the artifact store that RAYPATH_STORE names."""

from __future__ import annotations

import os
from pathlib import Path

from raypath.components.encryption.vault import is_encrypted, vault_for
from raypath.deploy.store.store import SHARED, Store


def open_store(home: Path, remote: str | None = None) -> Store:
    """Open the store at `remote` (None: the value of RAYPATH_STORE). The run history stays in `home`.

    Raises UserError or Unavailable when the store cannot be used.
    """
    remote = os.environ.get(SHARED, "") if remote is None else remote
    if is_encrypted(home):
        from raypath.deploy.store.encryption.encrypted_store import EncryptedStore

        vault = vault_for(home)
        assert vault is not None
        return EncryptedStore(home, vault, remote).open()
    if not remote:
        return Store(home).open()
    if "://" in remote:
        from raypath.deploy.store.object_store import ObjectStore

        return ObjectStore(home, remote).open()
    return Store(home, Path(remote)).open()
