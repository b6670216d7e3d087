"""Evidence from files: their modes and encryption, and API keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

from raypath.components.compliance.evidence import KeyEvidence, StoreEvidence
from raypath.components.data.wording import plural
from raypath.components.serving.metering.api_keys import LOCAL, KeyStore
from raypath.components.serving.metering.issuers import IssuerStore
from raypath.deploy.api.security.encryption import encryption_status
from raypath.deploy.store.store import SHARED

DEVICES = Path("/sys/dev/block")
"""Linux's folder of block devices by number."""
_SHOWN = 20
_DEPTH = 4
"""Layers of devices, such as a volume group on an encrypted partition."""


def keys_of(home: Path, at: datetime) -> tuple[list[KeyEvidence], int]:
    """Return the active API keys but this machine's own, and the number of trusted issuers. Raises PlatformError."""
    found = [key for key in KeyStore(home / "access").list() if key.status(at.timestamp()) == "active"]
    keys = [KeyEvidence(name=key.name, scopes=key.scopes, expires=key.expires) for key in found if key.name != LOCAL]
    return keys, len(IssuerStore(home / "access").list())


def store_of(home: Path) -> StoreEvidence:
    """Return what is known of the files of a home and of a shared store."""
    remote = os.environ.get(SHARED, "")
    encrypted, how = store_encryption(home)
    roots = [home, *([Path(remote).expanduser()] if remote and "://" not in remote else [])]
    opened = list(islice((str(path) for root in roots for path in _open_files(root)), _SHOWN))
    return StoreEvidence(place=remote or str(home), encrypted=encrypted, encryption=how, open_files=tuple(opened))


def store_encryption(home: Path) -> tuple[bool | None, str]:
    """Return True, False or None (not known) for the encryption of what a home stores, and how that is known."""
    remote = os.environ.get(SHARED, "")
    status = encryption_status(home=home)
    if status.encrypted:
        plain = {kind: count for kind, count in status.plain.items() if count}
        if plain:
            counts = ", ".join(f"{count} of {kind}" for kind, count in plain.items())
            return False, f"encryption is on, and files are in plaintext: {counts}"
        sealed = sum(status.sealed.values())
        return True, f"encryption is on: {plural(sealed, 'encrypted file')}, none in plaintext, key by {status.master}"
    if "://" in remote:
        return None, f"the encryption of {remote} is not seen from here"
    for place in (home, Path(remote).expanduser()) if remote else (home,):
        if not disk_is_encrypted(place):
            return None, f"`raypath encryption` is off, and no encryption of the disk of {place} is seen"
    return True, f"the disk of {remote or home} is encrypted (dm-crypt)"


def disk_is_encrypted(place: Path, devices: Path = DEVICES) -> bool:
    """Return True if a folder is on a device of dm-crypt, by LUKS for instance; False where that is not seen."""
    try:
        number = place.stat().st_dev
    except OSError:
        return False
    return _is_crypt(devices / f"{os.major(number)}:{os.minor(number)}", _DEPTH)


def _is_crypt(device: Path, depth: int) -> bool:
    try:
        if (device / "dm" / "uuid").read_text(encoding="ascii").startswith("CRYPT-"):
            return True
    except OSError:
        pass
    below = sorted((device / "slaves").glob("*")) if depth else []
    return bool(below) and all(_is_crypt(each, depth - 1) for each in below)


def _open_files(root: Path) -> Iterator[Path]:
    """Yield what other users may read; nothing below a folder that they cannot enter."""
    try:
        if root.stat().st_mode & 0o077 == 0:
            return
        if root.stat().st_mode & 0o044:
            yield root
        for folder, names, files in os.walk(root):
            names[:] = [name for name in names if _others(Path(folder, name), 0o011)]
            yield from (path for name in sorted(files) if _others(path := Path(folder, name), 0o044))
    except OSError:
        yield root


def _others(path: Path, bits: int) -> bool:
    try:
        return not path.is_symlink() and bool(path.stat().st_mode & bits)
    except OSError:
        return False
