"""Local cache of registered versions; each is fetched once, atomically."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, Unavailable
from raypath.components.core.files import locked, user_cache
from raypath.components.encryption.envelope import is_sealed
from raypath.components.encryption.vault import vault_for
from raypath.components.encryption.working_folder import hold
from raypath.components.registry.signing.check import Keys, check_files
from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.manifest import FILE as MANIFEST

log = logging.getLogger("raypath.registry")
FILES = "artifacts/model"
"""Path of the transformers folder in a version's MLflow model."""
CONFIGS = ("config.json", "adapter_config.json")
"""Files of which a version's folder has one: of a model, or of an adapter that is registered without its base."""


def cache_folder(signing: Path | None = None) -> Path:
    """Return the cache folder of this user; for an encrypted home, a folder in memory that this process uses.

    signing: the home's folder of keys. Raises PlatformError for a cache folder that another user made.
    """
    vault = vault_for(signing)
    return user_cache("models") if vault is None else hold(vault.home, "models")


def seal_files(folder: Path, identity: str, signing: Path | None) -> None:
    """Encrypt the files of a model before they are uploaded, if the home is encrypted, except their manifest."""
    vault = vault_for(signing)
    if vault is not None:
        for path in (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
            vault.seal_file(f"{identity}/{path.relative_to(folder).as_posix()}", path, path)


def open_files(folder: Path) -> None:
    """Decrypt the files of a model in place, in a folder in memory. Raises DataError without the keys."""
    for path in (path for path in folder.rglob("*") if path.is_file() and is_sealed(path)):
        vault = vault_for(folder)
        if vault is None:
            fix = "use it from the home that registered it"
            raise DataError("the files of this version are encrypted, and the keys are not here", fix=fix)
        # Each file is checked by its digest in the signed manifest next.
        vault.open_file(None, path, path)


def cached(uri: str, name: str, version: int, source: str, cache: Path) -> Path | None:
    """Return the folder of a cached version, without a request to MLflow; None if it has to be fetched."""
    folder = _folder_of(uri, name, version, source, cache)
    return folder if version and source and folder.is_dir() else None


def _folder_of(uri: str, name: str, version: int, source: str, cache: Path) -> Path:
    # The source contains the model's id: another server at this URI may have a version of the same name and number.
    key = hashlib.sha256(f"{uri}\0{name}\0{version}\0{source}".encode()).hexdigest()
    return cache / f"{name}-{version}-{key[:16]}"


def copy_id(folder: Path) -> int:
    """Return an id of the copy in a folder, which changes when it is replaced; 0 without a copy."""
    try:
        return folder.stat().st_ctime_ns  # inode numbers are reused
    except FileNotFoundError:
        return 0


def discard_corrupt(folder: Path, seen: int) -> None:
    """Remove a corrupt copy, unless another process has replaced it. seen: its `copy_id` when it was opened."""
    with locked(_lock(folder)):
        if not seen or copy_id(folder) != seen:
            return
        # Renamed first: another process finds the folder complete or not at all.
        discarded = folder.with_name(f".corrupt-{folder.name}")
        shutil.rmtree(discarded, ignore_errors=True)
        os.rename(folder, discarded)
        shutil.rmtree(discarded, ignore_errors=True)


def fetch(client: Any, uri: str, found: Any, cache: Path, manifest: str, keys: Keys) -> Path:
    """Return the local folder of a version (MLflow's entity), fetched once, with its files checked.

    A corrupt copy is fetched again, once. Concurrent processes wait for the first one to fetch it.

    Args:
        manifest: Digest of the signed manifest (`check_version`).
        keys: Trusted keys.

    Raises Unavailable, and DataError for files that are not those that were registered.
    """
    name, version = found.name, int(found.version)
    folder = _folder_of(uri, name, version, found.source, cache)
    if check_copy(folder, name, version, manifest, keys):
        return folder
    with locked(_lock(folder)):
        if not folder.is_dir():
            _download(client, uri, found, folder)
    try:
        check_files(folder, name, manifest, keys)
    except Untrusted as error:
        error.fail(name, version)
    return folder


def check_copy(folder: Path, name: str, version: int, manifest: str, keys: Keys, renewable: bool = True) -> bool:
    """Return True for a copy with the signed files; one without is discarded, or an error if it is not renewable."""
    copy = copy_id(folder)
    if not copy:
        return False
    try:
        check_files(folder, name, manifest, keys)
    except Untrusted as error:
        if not renewable:
            error.fail(name, version)
        log.warning("the copy of %s in %s %s; it is corrupt and is fetched again", name, folder, error.reason)
        discard_corrupt(folder, copy)
        return False
    return True


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _download(client: Any, uri: str, found: Any, folder: Path) -> None:
    from mlflow.artifacts import download_artifacts

    what = f"version {found.version} of {found.name}"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as part:
        where = client.get_model_version_download_uri(found.name, str(found.version))
        try:
            got = Path(download_artifacts(artifact_uri=f"{where}/{FILES}", dst_path=part, tracking_uri=uri))
        except OSError as error:
            raise Unavailable(f"{what} cannot be fetched ({error})", fix="try again") from None
        if not any((got / name).is_file() for name in CONFIGS):
            raise DataError(f"{what} is not a model that Raypath registered", fix="choose another version")
        open_files(got)
        os.rename(got, folder)
