"""Verify the signatures of all registered versions, and sign a version by hand."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.components.core.errors import DataError, Unavailable
from raypath.components.encryption.vault import vault_for
from raypath.components.encryption.working_folder import hold
from raypath.components.registry.cache import FILES, open_files
from raypath.components.registry.client import (
    RegisteredVersion,
    get_version,
    list_registered,
    mlflow_client,
    read_aliases,
)
from raypath.components.registry.signing.check import Keys, check_files
from raypath.components.registry.signing.envelope import State, Untrusted
from raypath.components.registry.signing.keys import short, signing_key, trusted_keys
from raypath.components.registry.signing.manifest import FILE, compare, folder_digests, sign_folder
from raypath.components.registry.signing.records import (
    sign_promotion,
    sign_version,
    signed_tags,
    verify_promotion,
    verify_version,
)
from raypath.components.registry.tags import CHAMPION
from raypath.components.tracking.tags import PREVIOUS_CHAMPION, PROMOTION, REASON, SIGNATURE

_DOWNLOAD = "registered_model_meta"
"""File that MLflow adds to what it downloads."""


@dataclass(frozen=True)
class Verified:
    """Outcome for a version."""

    version: RegisteredVersion
    state: State
    reason: str = ""
    """Why it is not valid."""
    key: str = ""
    """Short id of the key that signed it."""
    files: int = 0
    """Files of the model folder, when they are as signed."""


def verify_all(uri: str, signing: Path | None) -> Iterator[Verified]:
    """Verify every version: its records and all files, which are downloaded. Raises Unavailable."""
    keys = trusted_keys(signing)
    with mlflow_client(uri) as client:
        for found in list_registered(client):
            yield _verified(client, uri, found, keys, signing)


def _verified(client: Any, uri: str, found: RegisteredVersion, keys: Keys, signing: Path | None) -> Verified:
    key = ""
    try:
        record = verify_version(found.name, found.version, found.tags, keys)
        key = short(record.key)
        if CHAMPION in found.aliases:
            verify_promotion(found.name, found.version, found.tags, keys)
        with _downloaded(client, uri, found.name, found.version, signing) as root:
            manifest = check_files(root / FILES, found.name, record.manifest, keys)
            everything = folder_digests(root)
        outside = {name: digest for name, digest in everything.items() if not name.startswith(f"{FILES}/")}
        compare(manifest.package, outside)
    except Untrusted as error:
        return Verified(found, error.state, error.reason, key)
    except (DataError, Unavailable) as error:
        return Verified(found, "altered", error.what, key)
    return Verified(found, "valid", "", key, len(manifest.files))


def sign(uri: str, name: str, version: int, signing: Path | None) -> Verified:
    """Sign a version as it is in the registry now, and its promotion if it is the champion.

    Raises DataError for an unknown version, one whose files cannot be downloaded or that has links, UserError without a
    key.
    """
    key = signing_key(signing)
    with mlflow_client(uri) as client:
        found = get_version(client, name, version)
        with _downloaded(client, uri, name, version, signing) as root:
            try:
                manifest = sign_folder(key, root, FILES, name, signed_tags(found.tags))
            except Untrusted as error:
                error.fail(name, version)
            with tempfile.TemporaryDirectory(prefix="raypath-") as upload:
                Path(upload, FILES).mkdir(parents=True)
                shutil.copy(root / FILES / FILE, Path(upload, FILES))
                client.log_model_artifacts(_logged_model(found), upload)
        record = sign_version(key, name, version, manifest.digest, found.tags)
        client.set_model_version_tag(name, str(version), SIGNATURE, record)
        if read_aliases(client, name).get(CHAMPION) == version:
            previous = int(found.tags.get(PREVIOUS_CHAMPION) or 0)
            promotion = sign_promotion(key, name, version, previous, found.tags.get(REASON, ""))
            client.set_model_version_tag(name, str(version), PROMOTION, promotion)
        signed = next(each for each in list_registered(client, name) if each.version == version)
    return Verified(signed, "valid", "", short(key.public.id), len(manifest.files))


@contextlib.contextmanager
def _downloaded(client: Any, uri: str, name: str, version: int, signing: Path | None = None) -> Iterator[Path]:
    """Download the MLflow model of a version to a folder that is removed afterwards. Raises DataError."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    model = _logged_model(get_version(client, name, version))
    vault = vault_for(signing)
    with tempfile.TemporaryDirectory(prefix="raypath-", dir=hold(vault.home, "models") if vault else None) as place:
        try:
            where = client.get_logged_model(model).artifact_location
            root = Path(download_artifacts(artifact_uri=where, dst_path=place, tracking_uri=uri))
            open_files(root)
        except (OSError, MlflowException) as error:
            reason = " ".join(str(error).split())[:200]
            what = f"the files of {name} version {version} cannot be fetched ({reason})"
            raise DataError(what, fix="see the MLflow server's log") from None
        (root / _DOWNLOAD).unlink(missing_ok=True)
        yield root


def _logged_model(found: Any) -> str:
    """Return the id of the logged model of a version. Raises DataError for a version of another kind."""
    kind, _, model = str(found.source).partition(":/")
    if kind != "models" or not model.startswith("m-"):
        what = f"{found.name} version {found.version} is no model that Raypath registered"
        raise DataError(what, fix="register the model with a workflow")
    return model
