"""RegisteredVersion versions on this machine: each is fetched once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, Unavailable
from raypath.components.core.files import locked

FILES = "artifacts/model"
"""The transformers folder inside a version's MLflow model."""


def cache_folder() -> Path:
    """Where this machine keeps fetched versions: $RAYPATH_CACHE, else raypath/ in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RAYPATH_CACHE") or Path(home) / "raypath") / "models"


def cached(uri: str, name: str, version: int, source: str, cache: Path) -> Path | None:
    """The folder of a version that was fetched before, without asking MLflow; None when it has to be fetched."""
    folder = _folder_of(uri, name, version, source, cache)
    return folder if version and source and folder.is_dir() else None


def _folder_of(uri: str, name: str, version: int, source: str, cache: Path) -> Path:
    # The source holds the model's own id: another server may one day answer at this address with such a version.
    key = hashlib.sha256(f"{uri}\0{name}\0{version}\0{source}".encode()).hexdigest()
    return cache / f"{name}-{version}-{key[:16]}"


def copy_id(folder: Path) -> int:
    """What another copy at the same place does not have; 0 where there is none."""
    try:
        return folder.stat().st_ctime_ns  # an inode's number is used again
    except FileNotFoundError:
        return 0


def discard_corrupt(folder: Path, seen: int) -> None:
    """Remove a damaged copy, unless another process has put a new one there since its `mark` was taken."""
    with locked(_lock(folder)):
        if not seen or copy_id(folder) != seen:
            return
        # Aside first: whoever opens it meanwhile finds it whole, or not at all.
        aside = folder.with_name(f".damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def fetch(client: Any, uri: str, found: Any, cache: Path) -> Path:
    """The local folder of a version (MLflow's entity), fetched once. Raises Unavailable, DataError.

    Replicas of one machine that want the same version wait for the first of them.
    """
    folder = _folder_of(uri, found.name, int(found.version), found.source, cache)
    if folder.is_dir():
        return folder
    with locked(_lock(folder)):
        if not folder.is_dir():
            _download(client, uri, found, folder)
    return folder


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
        if not (got / "config.json").is_file():
            raise DataError(f"{what} is not a model that Raypath registered", fix="choose another version")
        os.rename(got, folder)
