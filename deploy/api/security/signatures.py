"""Signatures of registered models: verify all versions, sign one by hand, rotate the key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raypath.deploy.api.project import home_folder, private_process, registry_uri
from raypath.deploy.api.results import Result
from raypath.deploy.store.audit.log import audited

if TYPE_CHECKING:
    from raypath.components.registry.audit import Verified


class VersionSignature(Result):
    """A registered version and its signature."""

    name: str
    version: int
    aliases: list[str]
    state: Literal["valid", "unsigned", "altered", "unknown key"]
    """`unknown key`: signed by a key that is not trusted here."""
    reason: str
    """Why it is not valid; "" for a valid one."""
    key: str
    """Short id of the key, as of the files signing/KEY.pub; "" where it is not known."""
    files: int
    """Files of the model that were found to be as signed."""


class RotatedKey(Result):
    """A new signing key."""

    key: str
    """Its short id."""
    trusted: list[str]
    """Short ids of all keys that are trusted now."""


def verify(*, home: str | Path | None = None) -> list[VersionSignature]:
    """Verify every version of every registered model: records, tags and all files, which are downloaded.

    Raises:
        Unavailable: MLflow does not answer.
    """
    from raypath.components.registry.audit import verify_all

    folder = home_folder(home)
    with private_process():
        return [_signature(found) for found in verify_all(registry_uri(folder), folder / "signing")]


def sign(name: str, version: int, *, home: str | Path | None = None) -> VersionSignature:
    """Sign a version as it is in the registry now, and its promotion if it is the champion.

    Raises:
        DataError: Unknown model or version, or files that cannot be signed.
    """
    from raypath.components.registry import audit

    folder = home_folder(home)
    with private_process(), audited(folder, "model.sign", f"{name}/{version}"):
        return _signature(audit.sign(registry_uri(folder), name, version, folder / "signing"))


def rotate_key(*, home: str | Path | None = None) -> RotatedKey:
    """Make a new key, which signs from now on; earlier public keys stay trusted until their files are removed."""
    from raypath.components.registry.signing import keys

    place = home_folder(home)
    with private_process(), audited(place, "signing.rotate", "") as detail:
        made = keys.rotate_key(place / "signing")
        detail["key"] = keys.short(made)
        return RotatedKey(key=keys.short(made), trusted=sorted(map(keys.short, keys.trusted_keys(place / "signing"))))


def _signature(found: Verified) -> VersionSignature:
    version = found.version
    return VersionSignature(
        name=version.name,
        version=version.version,
        aliases=list(version.aliases),
        state=found.state,
        reason=found.reason,
        key=found.key,
        files=found.files,
    )
