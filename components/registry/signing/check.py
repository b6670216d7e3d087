"""Checks of registered versions before anything of them is read. Each raises DataError."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raypath.components.registry.signing.envelope import Untrusted
from raypath.components.registry.signing.keys import PublicKey
from raypath.components.registry.signing.manifest import Manifest, check_folder, read_manifest
from raypath.components.registry.signing.records import verify_promotion, verify_version

Keys = Mapping[str, PublicKey]


def check_version(name: str, version: int, tags: Mapping[str, str], keys: Keys, promoted: bool = False) -> str:
    """Return the digest of a version's manifest. Raises DataError for tags that are unsigned or altered.

    promoted: The version is used because it is the champion, so that its promotion has to be signed too.
    """
    try:
        record = verify_version(name, version, tags, keys)
        if promoted:
            verify_promotion(name, version, tags, keys)
    except Untrusted as error:
        error.fail(name, version)
    return record.manifest


def is_promoted(name: str, version: int, tags: Mapping[str, str], keys: Keys) -> bool:
    """Return True if the promotion of a version is signed."""
    try:
        verify_promotion(name, version, tags, keys)
    except Untrusted:
        return False
    return True


def check_files(folder: Path, name: str, digest: str, keys: Keys) -> Manifest:
    """Check the files of a model folder against its signed manifest, which `digest` names. Raises Untrusted."""
    manifest = read_manifest(folder, keys)
    if (manifest.digest, manifest.model) != (digest, name):
        raise Untrusted("altered", "has the files of another version")
    check_folder(folder, manifest)
    return manifest
